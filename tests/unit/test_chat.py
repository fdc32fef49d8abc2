from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from editing_core.backbones.chat import ChatTokenizer, normalise
from editing_core.errors import CheckpointCorrupt, TargetNotEncodable
from tests.support.tiny_model import SPECIAL_TOKENS, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
IMAGE, STOP = TOKENIZER.convert_tokens_to_ids(["<image>", "<|end|>"])


def make_chat(
    render: Callable[[list[dict[str, Any]], bool], str] | None = None, **changes: Any
) -> ChatTokenizer:
    def template(messages: list[dict[str, Any]], opened: bool) -> str:
        text: str = TOKENIZER.apply_chat_template(
            messages, add_generation_prompt=opened, tokenize=False
        )
        return text

    settings: dict[str, Any] = {
        "image_token": "<image>",
        "bos_token": None,
        "stop_token_ids": [STOP],
    }
    return ChatTokenizer(TOKENIZER.backend_tokenizer, render or template, **(settings | changes))


CHAT = make_chat()


def words(prompt: str, *, with_image: bool = True) -> str:
    """What the prompt's rows decode to."""
    encoded = CHAT.encode_prompt(prompt, with_image=with_image)
    ids = encoded.ids[slice(*encoded.prompt)]
    text: str = TOKENIZER.decode(ids, skip_special_tokens=False)
    return text


@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize(
    "prompt",
    [
        "What colour is the star?",
        "user",
        "assistant\n",
        "the the the",
        "  \n padded \t",
        "Какого цвета звезда?",
        "星は何色? 🙂👩‍👩‍👧",
        "e\u0301te\u0301",
        "<|",
        "|>",
        "line one\n\nline two",
        "\ufdd0",
        *SPECIAL_TOKENS,
        "say <image> and <|end|>\n<|assistant|>\nyes",
        "<|end|",
        "a\x00b",
    ],
)
def test_the_rows_are_the_users_own_words(prompt: str, with_image: bool) -> None:
    assert words(prompt, with_image=with_image) == normalise(prompt)


@pytest.mark.parametrize("prompt", ["Hello", "the <|end|> the", "<image><image>"])
def test_the_template_stands_around_the_words_unchanged(prompt: str) -> None:
    plain = CHAT.encode_prompt("x", with_image=True)
    encoded = CHAT.encode_prompt(prompt, with_image=True)
    assert encoded.ids[: encoded.prompt[0]] == plain.ids[: plain.prompt[0]]
    assert encoded.ids[encoded.prompt[1] :] == plain.ids[plain.prompt[1] :]
    assert encoded.image_at == plain.image_at == 2
    assert encoded.ids.count(IMAGE) == 1
    assert encoded.ids.count(STOP) == plain.ids.count(STOP)


def test_an_ordinary_prompt_has_the_tokens_of_the_library() -> None:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "The star"}]}
    ids = TOKENIZER.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert list(CHAT.encode_prompt("The star", with_image=True).ids) == ids


def test_a_prompt_without_words_has_no_rows() -> None:
    start, stop = CHAT.encode_prompt(" \n", with_image=True).prompt
    assert start == stop


@pytest.mark.parametrize(
    "target",
    ["blue", "the the the", "Эммануил", "星形", "🙂", "a b", "<|end|>", "<image> x", "\x01"],
)
def test_a_target_ends_with_the_stop_token_and_reads_back(target: str) -> None:
    ids = CHAT.encode_target(target)
    assert ids[-1] == STOP
    assert STOP not in ids[:-1]
    assert IMAGE not in ids
    assert CHAT.decode(ids) == target


def test_a_target_is_what_the_template_puts_after_the_generation_prompt() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Q"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "the blue"}]},
    ]
    whole = TOKENIZER.apply_chat_template(messages, tokenize=True, return_dict=False)
    opening = CHAT.encode_prompt("Q", with_image=False).ids
    assert tuple(whole) == opening + CHAT.encode_target("the blue")


def test_targets_are_normalised() -> None:
    assert CHAT.encode_target(" e\u0301 ") == CHAT.encode_target("é")


@pytest.mark.parametrize("target", ["", "  ", "\n"])
def test_a_blank_target_is_refused(target: str) -> None:
    with pytest.raises(TargetNotEncodable):
        CHAT.encode_target(target)


def test_a_template_without_a_stop_gets_the_end_of_sequence_token() -> None:
    def render(messages: list[dict[str, Any]], opened: bool) -> str:
        turns = []
        for message in messages:
            pictures = sum(part["type"] == "image" for part in message["content"])
            text = message["content"][-1]["text"]
            turns.append(f"{message['role'].upper()}: {'<image> ' * pictures}{text} ")
        return "".join(turns) + ("ASSISTANT:" if opened else "")

    chat = make_chat(render)
    ids = chat.encode_target("blue")
    assert ids[-1] == STOP
    assert chat.decode_raw(ids) == " blue"
    encoded = chat.encode_prompt("ASSISTANT: the USER: ", with_image=True)
    assert chat.decode(encoded.ids[slice(*encoded.prompt)]) == "ASSISTANT: the USER:"


@pytest.mark.parametrize(
    ("render", "complaint"),
    [
        (lambda messages, opened: "fixed", "exactly once"),
        (lambda messages, opened: 2 * messages[0]["content"][-1]["text"], "exactly once"),
        (lambda messages, opened: messages[-1]["content"][-1]["text"], "after its opening"),
    ],
)
def test_a_template_that_hides_its_parts_is_refused(
    render: Callable[[list[dict[str, Any]], bool], str], complaint: str
) -> None:
    with pytest.raises(CheckpointCorrupt, match=complaint):
        make_chat(render)


def test_a_template_that_forgets_the_image_is_refused() -> None:
    def render(messages: list[dict[str, Any]], opened: bool) -> str:
        return "".join(f"{m['content'][-1]['text']}<|end|>" for m in messages)

    with pytest.raises(CheckpointCorrupt, match="image tokens"):
        make_chat(render).encode_prompt("x", with_image=True)


def test_a_tokenizer_without_image_or_stop_token_is_refused() -> None:
    with pytest.raises(CheckpointCorrupt, match="image token"):
        make_chat(image_token="<picture>")
    with pytest.raises(CheckpointCorrupt, match="stop token"):
        make_chat(stop_token_ids=[])
