"""Text to tokens and back, through the model's own chat template.

Two rules hold whatever a user types. The rows of the user's own words are known exactly: the
template is rendered once around a marker, never searched for the prompt. And the user's text can
never become a special token: `<image>` typed into a prompt is seven characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from tokenizers import Encoding, Tokenizer

from editing_core.backbones.turns import Render, write_turns
from editing_core.errors import (
    CheckpointCorrupt,
    CheckpointUnsupported,
    TargetNotEncodable,
    TurnsNotWritable,
)
from editing_core.grammar import TokenGrammar, token_grammar
from editing_core.identity import nfc
from editing_core.types import Turn

_PROMPT_MARK = "\ufdd0"
_TARGET_MARK = "\ufdd1"


TEMPLATE_HINT = (
    "A template must take a message's content as a list of parts (image, text), and put an answer "
    "right after its generation prompt. Put one that does into chat_template.jinja."
)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A chat up to and including the generation prompt, its image tokens not yet repeated.

    `prompt` is the half-open range of the user's last words in `ids`; `images` the places of image
    tokens, one for each that the pictures' texts hold, and `shown` the half-open range of all that
    stands for the pictures, where there is one turn only.
    """

    ids: tuple[int, ...]
    prompt: tuple[int, int]
    images: tuple[int, ...]
    shown: tuple[int, int] | None

    @property
    def image_at(self) -> int | None:
        """The place of the first image token, None without an image."""
        return self.images[0] if self.images else None


def normalise(text: str) -> str:
    """The form in which prompts and targets reach the model: NFC, without outer white space."""
    return nfc(text).strip()


def chat_template(named: Any, otherwise: str | None) -> str:
    """The template to use of those a checkpoint has: its only one, or the one named `default`.

    Raises `CheckpointCorrupt` where there is none, `CheckpointUnsupported` where none of several is
    the default.
    """
    if isinstance(named, Sequence) and not isinstance(named, str):
        named = {each["name"]: each["template"] for each in named}
    if isinstance(named, Mapping):
        if "default" not in named:
            names = ", ".join(sorted(map(str, named))) or "none at all"
            raise CheckpointUnsupported(
                f"of the checkpoint's chat templates none is named 'default': {names}",
                hint="Put the one to use into chat_template.jinja.",
            )
        named = named["default"]
    chosen = named or otherwise
    if chosen is None:
        raise CheckpointCorrupt("the checkpoint has no chat template, and its family no default")
    return str(chosen)


class ChatTokenizer:
    """Immutable after construction; safe to call from several threads.

    The backend tokenizer is copied, because the wrapper of transformers changes its state on every
    call. Raises `CheckpointCorrupt` when the template does not show prompt, image and answer
    exactly once and in order, `CheckpointUnsupported` when it writes text of its own before an
    answer.
    """

    def __init__(
        self,
        backend: Tokenizer,
        render: Render,
        *,
        image_token: str,
        bos_token: str | None,
        stop_token_ids: Sequence[int],
        placeholder: str | None = None,
    ) -> None:
        self._tokenizer = _unpadded(backend.to_str())
        self.description: str = self._tokenizer.to_str()
        self._literal = _unpadded(self.description)
        self._literal.encode_special_tokens = True
        self._special = frozenset(
            index
            for index, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special or token.content == image_token
        )
        image_token_id = self._tokenizer.token_to_id(image_token)
        if image_token_id is None:
            raise CheckpointCorrupt(f"the tokenizer has no image token {image_token!r}")
        self.image_token_id: int = image_token_id
        self.stop_token_ids = tuple(stop_token_ids)
        self.longest_token: int = max(map(len, self._tokenizer.get_vocab()))
        self._bos_token = bos_token
        self.image_token = image_token
        self._placeholder = placeholder or image_token
        self._render = render
        self._text_only = self._around_prompt(0)
        self._with_image = self._around_prompt(1)
        self._answer = self._around_target(render)

    def encode_prompt(
        self, prompt: str, *, with_image: bool, pictures: Sequence[str] = ()
    ) -> EncodedPrompt:
        """Encode the chat turn that asks `prompt`. The prompt is normalised first.

        `pictures` is what stands for each picture, by default one image token for one picture.
        """
        prompt = normalise(prompt)
        if with_image and not pictures:
            pictures = (self.image_token,)
        before, after, (first, end) = self._written(pictures, len(prompt))
        ids, offsets = self._encode((before, after), (prompt,))
        images = self._images_in(ids, pictures)
        show = [i for i, (left, right) in enumerate(offsets) if left < end and right > first]
        shown = (show[0], show[-1] + 1) if show else None
        span = _rows_of((len(before), len(before) + len(prompt)), offsets)
        return EncodedPrompt(tuple(ids), span, images, shown)

    def encode_turns(self, turns: Sequence[Turn], pictures: Sequence[str] = ()) -> EncodedPrompt:
        """Encode a conversation whose last turn is to be answered. Words are normalised first.

        `pictures` is what stands for each picture of all turns, in order. Raises
        `TurnsNotWritable`.
        """
        pieces = write_turns(self._render, turns)
        places = sum(piece.count(self._placeholder) for piece in pieces)
        if places != len(pictures):
            raise TurnsNotWritable(
                f"the model's chat template shows {places} of the {len(pictures)} pictures"
            )
        texts, stand_ins = [normalise(turn.text) for turn in turns], iter(pictures)
        for i, piece in enumerate(pieces):
            whole, *others = piece.split(self._placeholder)
            pieces[i] = whole + "".join(next(stand_ins) + other for other in others)
        ids, offsets = self._encode(pieces, texts)
        *_, last = _joined(pieces, texts)[1]
        return EncodedPrompt(
            tuple(ids), _rows_of(last, offsets), self._images_in(ids, pictures), None
        )

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text as it stands, after the opening token if there is one.

        What spells special tokens is text.
        """
        return tuple(self._literal.encode(text, add_special_tokens=True).ids)

    def encode_target(self, target: str) -> tuple[int, ...]:
        """What the template puts after the generation prompt for this answer, with its stop token.

        The target is normalised first. Raises `TargetNotEncodable` when decoding the tokens does
        not give it back.
        """
        target = normalise(target)
        lead, tail, stop_token_id = self._answer
        before, after = self._text_only
        # The prompt does not matter: tokens never merge across more than the generation prompt.
        opening = f"{before}x{after}"
        answer = f"{lead}{target}{tail}"
        ids = self._continue(self._tokenizer, opening, answer)
        if ids is None or not self._special.isdisjoint(ids):
            ids = self._continue(self._literal, opening, answer)
        if ids is None:
            ids = list(self._literal.encode(answer, add_special_tokens=False).ids)
        if not target or self.decode(ids) != target or not self._special.isdisjoint(ids):
            raise TargetNotEncodable("the tokenizer cannot write this target and read it back")
        return (*ids, stop_token_id)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, special tokens removed, trimmed."""
        return self.decode_raw(ids).strip()

    @property
    def grammar(self) -> TokenGrammar:
        """Its tokens as grammars see them. Made when first asked for, which may take a second."""
        return token_grammar(self.description, self.stop_token_ids)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.get_vocab_size()

    def decode_raw(self, ids: Sequence[int]) -> str:
        """As `decode`, not trimmed. An incomplete character shows as U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _encode(
        self, pieces: Sequence[str], texts: Sequence[str]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens and their ranges of the template's `pieces` with what was typed in between."""
        text, typed = _joined(pieces, texts)
        adds = self._adds_special_tokens(pieces[0])
        whole = self._tokenizer.encode(text, add_special_tokens=adds)
        specials = (
            span
            for token, span in zip(whole.ids, whole.offsets, strict=True)
            if token in self._special
        )
        if not any(
            left < stop and right > start for left, right in specials for start, stop in typed
        ):
            return whole.ids, whole.offsets
        return self._encode_literally(pieces, texts, adds=adds)

    def _encode_literally(
        self, pieces: Sequence[str], texts: Sequence[str], *, adds: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode what spells special tokens: the stretch around each typed text reads none."""
        text, _ = _joined(pieces, texts)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []

        def append(encoding: Encoding, shift: int) -> None:
            ids.extend(encoding.ids)
            offsets.extend((start + shift, stop + shift) for start, stop in encoding.offsets)

        at = 0
        for left, right in self._literal_stretches(pieces, texts):
            head = text[at:left]
            append(self._tokenizer.encode(head, add_special_tokens=adds and at == 0), at)
            append(self._literal.encode(text[left:right], add_special_tokens=False), left)
            at = right
        append(self._tokenizer.encode(text[at:], add_special_tokens=False), at)
        return ids, offsets

    def _literal_stretches(
        self, pieces: Sequence[str], texts: Sequence[str]
    ) -> list[tuple[int, int]]:
        """Ranges of the joined text, from the special token before what was typed to the next."""
        # One letter for each text shows where the template's own special tokens are.
        plain, places = _joined(pieces, ["x"] * len(texts))
        specials = self._special_ranges(plain)

        def moved(at: int) -> int:
            typed = zip(places, texts, strict=True)
            return at + sum(len(text) - 1 for (_, end), text in typed if end <= at)

        stretches: dict[tuple[int, int], None] = {}
        for begin, end in places:
            left = max((stop for _, stop in specials if stop <= begin), default=0)
            right = min((start for start, _ in specials if start >= end), default=len(plain))
            stretches[moved(left), moved(right)] = None
        return list(stretches)

    def _images_in(self, ids: Sequence[int], pictures: Sequence[str]) -> tuple[int, ...]:
        """The places of image tokens, as many as the pictures' texts hold."""
        images = tuple(i for i, token in enumerate(ids) if token == self.image_token_id)
        expected = sum(text.count(self.image_token) for text in pictures)
        if len(images) != expected:
            raise CheckpointCorrupt(
                f"the chat template made {len(images)} image tokens where {expected} belong",
                hint=TEMPLATE_HINT,
            )
        return images

    def _continue(self, tokenizer: Tokenizer, opening: str, answer: str) -> list[int] | None:
        """Tokens of `answer` after `opening`; None when they merge across the boundary."""
        if tokenizer is self._literal:
            opening = opening[max((stop for _, stop in self._special_ranges(opening)), default=0) :]
        first = tokenizer.encode(opening, add_special_tokens=False).ids
        both = tokenizer.encode(opening + answer, add_special_tokens=False).ids
        return list(both[len(first) :]) if both[: len(first)] == first else None

    def _special_ranges(self, text: str) -> list[tuple[int, int]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [
            span
            for token, span in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self._special
        ]

    def _adds_special_tokens(self, before: str) -> bool:
        # A template that writes the opening token itself must not get a second one.
        return not (self._bos_token and self._bos_token in before)

    def _written(self, pictures: Sequence[str], between: int) -> tuple[str, str, tuple[int, int]]:
        """What stands before and after the user's words, the pictures' texts in place.

        The range is that of the pictures, first to last, when `between` characters are the user's.
        """
        if not pictures:
            return (*self._text_only, (0, 0))
        around = self._with_image if len(pictures) == 1 else self._around_prompt(len(pictures))
        places = sum(part.count(self._placeholder) for part in around)
        if places != len(pictures):
            raise CheckpointCorrupt(
                f"the chat template made {places} image tokens where {len(pictures)} belong",
                hint=TEMPLATE_HINT,
            )
        texts, written, edges, begin = iter(pictures), [], [], 0
        for part in around:
            whole, *others = part.split(self._placeholder)
            for other in others:
                edges.append(begin + len(whole))
                whole += next(texts)
                edges.append(begin + len(whole))
                whole += other
            written.append(whole)
            begin += len(whole) + between
        return written[0], written[1], (edges[0], edges[-1])

    def _around_prompt(self, images: int) -> tuple[str, str]:
        content = [{"type": "image"}] * images + [{"type": "text", "text": _PROMPT_MARK}]
        text = self._render([{"role": "user", "content": content}], True)
        if text.count(_PROMPT_MARK) != 1:
            raise CheckpointCorrupt(
                "the chat template does not show the user's words exactly once", hint=TEMPLATE_HINT
            )
        before, after = text.split(_PROMPT_MARK)
        return before, after

    def _around_target(self, render: Render) -> tuple[str, str, int]:
        """What stands before and after an answer, and the token that stops it."""
        question = {"role": "user", "content": [{"type": "text", "text": _PROMPT_MARK}]}
        reply = {"role": "assistant", "content": [{"type": "text", "text": _TARGET_MARK}]}
        opening = render([question], True)
        whole = render([question, reply], False)
        if not whole.startswith(opening) or whole.count(_TARGET_MARK) != 1:
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(opening, whole, strict=False))
            apart = opening[len(list(alike)) :]
            ending = f": the opening ends in {apart!r}" if apart else ""
            raise CheckpointCorrupt(
                f"the chat template does not put an answer after its opening{ending}",
                hint=TEMPLATE_HINT,
            )
        lead, tail = whole[len(opening) :].split(_TARGET_MARK)
        if lead.strip():
            raise CheckpointUnsupported(
                f"the chat template writes {lead.strip()!r} between a question and its answer, as "
                "for models that think before they answer",
                hint=TEMPLATE_HINT,
            )
        encoding = self._tokenizer.encode(tail, add_special_tokens=False)
        for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self.stop_token_ids:
                return lead, tail[:start], token
        if not self.stop_token_ids:
            raise CheckpointCorrupt("the checkpoint names no stop token")
        # Families whose template writes none end an answer with the end-of-sequence token.
        return lead, "", self.stop_token_ids[0]


def _joined(pieces: Sequence[str], texts: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Pieces with the texts between them, and the range of each text."""
    joined, ranges = pieces[0], []
    for text, piece in zip(texts, pieces[1:], strict=True):
        ranges.append((len(joined), len(joined) + len(text)))
        joined += text + piece
    return joined, ranges


def _rows_of(span: tuple[int, int], offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The tokens of a range of characters; an empty range at the end where it has none."""
    start, stop = span
    rows = [i for i, (left, right) in enumerate(offsets) if left < stop and right > start]
    return (rows[0], rows[-1] + 1) if rows else (len(offsets), len(offsets))


def _unpadded(description: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(description)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
