"""Whatever is typed, the template stays whole and the rows are the words."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from editing_core.backbones.chat import normalise
from editing_core.errors import TargetNotEncodable
from tests.support.tiny_model import SPECIAL_TOKENS
from tests.unit.test_chat import CHAT, TOKENIZER

# Anything a person may paste, often a piece of the template.
TYPED = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "\n", "user"])),
    max_size=6,
).map("".join)
EMPTY = {seen: CHAT.encode_prompt("x", with_image=seen) for seen in (True, False)}


@given(prompt=TYPED, with_image=st.booleans())
def test_a_prompt_is_plain_text_between_the_templates_tokens(prompt: str, with_image: bool) -> None:
    encoded, empty = CHAT.encode_prompt(prompt, with_image=with_image), EMPTY[with_image]
    start, stop = encoded.prompt
    words = encoded.ids[start:stop]
    assert TOKENIZER.decode(words, skip_special_tokens=False) == normalise(prompt)
    assert not set(words) & set(TOKENIZER.all_special_ids)
    if words:
        assert encoded.ids[:start] == empty.ids[: empty.prompt[0]]
        assert encoded.ids[stop:] == empty.ids[empty.prompt[1] :]


@given(target=TYPED)
def test_a_target_reads_back_or_is_refused(target: str) -> None:
    try:
        ids = CHAT.encode_target(target)
    except TargetNotEncodable:
        assert not normalise(target)
        return
    assert CHAT.decode(ids) == normalise(target)
    assert [token in TOKENIZER.all_special_ids for token in ids] == [False] * (len(ids) - 1) + [
        True
    ]


def test_many_threads_share_one_tokenizer() -> None:
    prompts = ["<image> the", "Is it blue?", "Ж🙂", "the <|end|>"] * 2
    expected = [CHAT.encode_prompt(prompt, with_image=True) for prompt in prompts]
    wrong: list[str] = []

    def encode(i: int) -> None:
        for _ in range(200):
            if CHAT.encode_prompt(prompts[i], with_image=True) != expected[i]:
                wrong.append(prompts[i])

    threads = [threading.Thread(target=encode, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
