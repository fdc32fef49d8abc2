"""Messages of chats and responses as the turns of one conversation.

System messages come first, whatever their place. Messages of one role in a row are one turn, with
a blank line between; what a tool gave is the user's. Pictures stand before the words of their turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby

from app.answering import Message
from app.errors import InvalidField, UnsupportedParameter
from app.openai.fields import Lenient
from app.schemas.base import Some, Text
from editing_core.types import Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "user",
    "function": "user",
    "assistant": "assistant",
}
_TEXTS = ("text", "input_text", "output_text")
_IMAGES = ("image_url", "input_image", "image")
_BETWEEN = "\n\n"

LEFT_OUT = "earlier_images"
"""How pictures are named that were left out."""


class ImageUrl(Lenient):
    url: str


class Part(Lenient):
    type: Text
    text: Text | None = None
    image_url: str | ImageUrl | None = None
    refusal: Text | None = None


class WireMessage(Lenient):
    role: Text
    content: Text | Some[Part] | None = None


def conversation(
    messages: Sequence[WireMessage], *, param: str, takes_several: bool
) -> tuple[tuple[Message, ...], list[str]]:
    """The turns, the user's last, and what was left out of them.

    A model that is not shown several pictures is shown the latest. Raises where there is nothing to
    answer, and where such a model is to be shown several in the last turn itself.
    """
    turns = _turns(messages, param=param)
    if takes_several or sum(len(turn.images) for turn in turns) <= 1:
        return turns, []
    return _with_one_picture(turns, param=param), [LEFT_OUT]


def _turns(messages: Sequence[WireMessage], *, param: str) -> tuple[Message, ...]:
    turns: list[Message] = []
    for message in messages:
        turn = _turn(message, param=param)
        if turn.text or turn.images:
            turns.append(turn)
    turns.sort(key=lambda turn: turn.role != "system")
    joined = [_together(role, list(group)) for role, group in groupby(turns, lambda t: t.role)]
    if not joined or joined[-1].role != "user" or not joined[-1].text.strip():
        raise InvalidField(
            f"{param}: the last message must be the user's, and have words.", param=param
        )
    return tuple(joined)


def _with_one_picture(turns: Sequence[Message], *, param: str) -> tuple[Message, ...]:
    if len(turns[-1].images) > 1:
        raise UnsupportedParameter(
            f"{param}: this model is shown one picture at a time.",
            param=param,
            hint="Send one picture in a message.",
        )
    latest = max((i for i, turn in enumerate(turns) if turn.images), default=None)
    return tuple(
        Message(turn.role, turn.text, turn.images[-1:] if i == latest else ())
        for i, turn in enumerate(turns)
    )


def _turn(message: WireMessage, *, param: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidField(f"{param}: there is no role {message.role!r}.", param=param)
    if message.content is None or isinstance(message.content, str):
        return Message(role, message.content or "")
    texts: list[str] = []
    images: list[str] = []
    for part in message.content:
        if part.type in _TEXTS and part.text is not None:
            texts.append(part.text)
        elif part.type == "refusal" and part.refusal is not None:
            texts.append(part.refusal)
        elif part.type in _IMAGES and part.image_url is not None:
            url = part.image_url
            images.append(url if isinstance(url, str) else url.url)
        else:
            raise UnsupportedParameter(
                f"{param}: a part of type {part.type!r} cannot be read here.",
                param=param,
                hint='Send parts {"type": "text", "text": "..."} and '
                '{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}.',
            )
    if images and role != "user":
        raise InvalidField(f"{param}: only the user's messages may have pictures.", param=param)
    return Message(role, "\n".join(texts), tuple(images))


def _together(role: Role, turns: Sequence[Message]) -> Message:
    """All at once: one after another, a thousand of them would be copied a thousand times."""
    text = _BETWEEN.join(turn.text for turn in turns if turn.text)
    return Message(role, text, tuple(chain.from_iterable(turn.images for turn in turns)))
