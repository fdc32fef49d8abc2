"""Values that cross the library's borders: what is asked, what an edit becomes, what came out.

Everything here is frozen and picklable, so that an engine can live in another process.
Images are RGB arrays, `uint8 [height, width, 3]`, already decoded, oriented and flattened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
Positions = Literal["from_last_prompt_token", "vision", "all"]
FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]
Rows = slice | list[int]
"""An index of rows: a slice, which costs no copy, where they are consecutive."""
Notify = Callable[[str, int, int], None]
"""`(what, done, total)`: how far something that takes long has come."""

OnProgress = Callable[[int, int, float], None]
"""Told between gradient steps: steps made, the most there may be, and the loss."""
Outcome = Literal[
    "applied",
    "another_picture",
    "below_sentinel",
    "below_text_gate",
    "excluded",
    "ambiguous",
    "outweighed",
    "inactive",
]
"""What became of an edit that passed the image filter: see `Candidate`."""


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One correction: on this picture, to this prompt, the model must answer `target`.

    `rephrases` are further wordings that must get it too. `not_for` are questions about the
    picture that the edit must leave alone.
    """

    image: ImageArray
    prompt: str
    target: str
    rephrases: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """Where the parts of one row lie in the token sequence, as half-open ranges without padding.

    `vision` runs from the picture's first row to its last. Families that cut a picture into tiles,
    or take several, put separators between: `apart` are the rows in that range that are not the
    picture's. `prompt` holds the user's own words only, never the template's. `last_prompt` is the
    row that predicts the first answer token. `target` is empty for a query.
    """

    vision: tuple[int, int] | None
    prompt: tuple[int, int]
    last_prompt: int
    target: tuple[int, int]
    apart: tuple[int, ...] = ()

    @property
    def vision_rows(self) -> Rows:
        """The picture's own rows, as an index of them; empty without a picture."""
        return self.vision_columns(0)

    def vision_columns(self, padding: int) -> Rows:
        """`vision_rows` where the row begins after `padding` columns."""
        start, stop = self.vision or (-padding, -padding)
        if not self.apart:
            return slice(start + padding, stop + padding)
        apart = set(self.apart)
        return [row + padding for row in range(start, stop) if row not in apart]


def no_sketch() -> NDArray[np.int8]:
    """Of a picture that its key alone tells from others."""
    return np.zeros(0, dtype=np.int8)


@dataclass(frozen=True, slots=True, eq=False)
class PictureKey:
    """What a picture is known by: `image` float32 `[image_key_dim]`, L2-normalised, and `sketch`
    int8 `[n]`, which the eyes lay beside another (`eyes/sketch.py`), empty where they do not."""

    image: NDArray[np.float32]
    sketch: NDArray[np.int8] = field(default_factory=no_sketch)


@dataclass(frozen=True, slots=True)
class RoutingKey:
    """What identifies an edit to the router.

    `image` float32 `[image_key_dim]`, L2-normalised: the hard filter's key. `text` and `visual`
    float32 `[num_queries, key_dim]`: edit-side textual and prompt-guided visual key. Without a
    trained router `text` is `[wordings, hidden]` and `visual` is `[0, 0]`. `sketch` is that of
    `PictureKey`.
    """

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    visual: NDArray[np.float32]
    sketch: NDArray[np.int8] = field(default_factory=no_sketch)


EYES = "eyes"
"""The entry of an artifact's metadata that names the eyes which made its image key, if any did."""


@dataclass(frozen=True, slots=True)
class EditArtifact:
    """What an edit is stored as. `payload` tensors are on the CPU and rounded (`experts/rounding`),
    float16 as a rule; the codec is lossless.

    The fingerprints name the weights that made it; other weights make it *stale*. Other eyes do
    not: its image key is made again from its picture.
    """

    editor: str
    edit_layer: int
    positions: Positions
    payload: Mapping[str, torch.Tensor]
    key: RoutingKey
    backbone_fingerprint: str
    editor_fingerprint: str
    router_fingerprint: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def eyes_fingerprint(self) -> str:
        """Of the eyes that made its image key; empty where the backbone alone did."""
        return self.metadata.get(EYES, "")

    def seen_by(self, eyes: str, picture: PictureKey) -> EditArtifact:
        """The same expert under the key of its picture that other eyes, or none (empty), make."""
        metadata = {name: text for name, text in self.metadata.items() if name != EYES}
        if eyes:
            metadata[EYES] = eyes
        key = replace(self.key, image=picture.image, sketch=picture.sketch)
        return replace(self, key=key, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One edit that passed the hard image filter, and what became of it.

    `image_similarity` is the cosine of the image keys; `text_similarity` the router's text gate
    in 0..1; `weight` the final multiplier, 0 unless `outcome` is `applied`. `matched` is the
    wording of the edit that was nearest to the question, where texts were compared.

    `another_picture`: laid side by side, the pictures are two. `excluded`: a question that the
    edit must leave alone was nearer. `ambiguous`: edits of two
    targets fit, neither clearly better. `outweighed`: an edit of another target answers.
    """

    edit_id: str
    image_similarity: float
    text_similarity: float
    weight: float
    outcome: Outcome
    matched: str | None = None


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Made once per row at prefill, reused at every decode step. Highest weight first."""

    candidates: tuple[Candidate, ...] = ()

    @property
    def applied(self) -> tuple[Candidate, ...]:
        return tuple(c for c in self.candidates if c.outcome == "applied")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation: its words, and the pictures that it shows before them."""

    role: Role
    text: str
    images: tuple[ImageArray, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to continue a row. `temperature` 0 is greedy. `seed` None draws a fresh one.

    The penalties take their amount off the logit of a token that was generated before, once or for
    each time; `logit_bias` adds to those of `(token, amount)`. `grammar`, made by
    `TokenGrammar.compile`, says what may be written at all. With `top_logprobs` the result has each
    token's log-probability, and that many alternatives.
    """

    max_new_tokens: int = 80
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: str | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's natural log-probability, and the likeliest `(token, log-probability)` there."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """One finished row. `text` has special tokens removed and is trimmed.

    `token_ids` are the generated ones, stop token included when it was generated, and so are those
    of `logprobs`, where they were asked for. `cached_tokens` of the prompt were not run for it.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    decision: RoutingDecision
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Wordings:
    """What an edit says of itself, or would: its prompt first, then its rephrases."""

    wordings: tuple[str, ...]
    not_for: tuple[str, ...] = ()
