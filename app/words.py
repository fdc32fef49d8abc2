"""What the service knows of the model's tokens, without asking the device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from editing_core.grammar import TokenGrammar, token_grammar

if TYPE_CHECKING:
    from editing_core.backbones.base import Backbone


@dataclass(frozen=True, slots=True)
class ModelWords:
    """Of one loaded model; picklable, and never changed. `description` is its tokenizer's JSON."""

    description: str = field(repr=False)
    stop_token_ids: tuple[int, ...]
    image_token_id: int
    vocabulary: int
    max_positions: int
    takes_several_images: bool

    @classmethod
    def of(cls, backbone: Backbone) -> ModelWords:
        chat = backbone.chat
        return cls(
            description=chat.description,
            stop_token_ids=chat.stop_token_ids,
            image_token_id=chat.image_token_id,
            vocabulary=chat.vocabulary,
            max_positions=backbone.max_positions,
            takes_several_images=backbone.takes_several_images,
        )

    @property
    def grammar(self) -> TokenGrammar:
        """Made when first asked for, which may take a second: not on the event loop."""
        return token_grammar(self.description, self.stop_token_ids)

    def bytes_of(self, token: int) -> bytes:
        return self.grammar.bytes_of(token)

    def text_of(self, token: int) -> str:
        """A token as text. One that is no whole characters is written as its bytes."""
        data = self.bytes_of(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
