"""What can go wrong in the library, drawn as a tree.

    EditingError
    ├── RequestError              the caller's input cannot be served; `param` names the field
    │   ├── ContextTooLong        prompt (and answer) do not fit the model's context
    │   ├── TargetTooLong         the target has more tokens than an edit may have
    │   ├── TargetNotEncodable    decoding the encoded target does not give it back
    │   ├── AnswerTooShort        the answer has no token of the number asked about
    │   ├── PictureNotReadable    the model's own image processor cannot take this picture
    │   ├── TurnsNotWritable      the model's chat template cannot write this conversation
    │   └── SchemaNotSupported    an answer cannot be held to this JSON schema
    ├── CheckpointError           weights on disk cannot be used
    │   ├── CheckpointMissing     a file or folder is not there
    │   ├── CheckpointCorrupt     a file is damaged, or is not what the manifest says
    │   ├── FingerprintMismatch   two parts of a checkpoint were not made for each other
    │   ├── UnknownArchitecture   no backbone is registered for this model family
    │   └── CheckpointUnsupported the files are whole, and of a kind that cannot be served
    ├── ArtifactCorrupt           a stored edit is damaged
    ├── StaleArtifact             a stored edit was made by other weights
    ├── NotFinite                 the model gave no numbers: NaN or infinity
    ├── TrainingError             a training cannot begin, or go on, as asked
    │   └── AnotherPlan           the run kept there was begun with other settings
    └── GenerationCancelled       the caller asked to stop

Every error has a `message` that says what happened, a `hint` that says what to do, a stable
machine-readable `code`, and `param`, the request field it is about, or None.
"""

from __future__ import annotations

from typing import ClassVar


class EditingError(Exception):
    """Root of the tree. Carries text only, so that it survives pickling between processes."""

    code: ClassVar[str] = "editing_error"
    default_hint: ClassVar[str] = "See the log for details."
    param: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint


class RequestError(EditingError):
    """The caller's input cannot be served; nothing was changed."""

    code = "invalid_request"
    default_hint = "Change the request and send it again."


class ContextTooLong(RequestError):
    code = "context_too_long"
    default_hint = "Shorten the prompt."
    param = "prompt"


class TargetTooLong(RequestError):
    code = "target_too_long"
    default_hint = "Shorten the target."
    param = "target"


class TargetNotEncodable(RequestError):
    code = "target_not_encodable"
    default_hint = "Use text that this model's tokenizer can write and read back."
    param = "target"


class AnswerTooShort(RequestError):
    code = "answer_too_short"
    default_hint = "Ask about an earlier token; the first one is number 0."
    param = "token"


class PictureNotReadable(RequestError):
    code = "image_not_readable_by_model"
    default_hint = "Send a picture of another shape: scale it, or crop its long side."
    param = "image"


class TurnsNotWritable(RequestError):
    code = "conversation_not_writable"
    default_hint = "Send turns of user and assistant one after the other, the user's first."
    param = "messages"


class SchemaNotSupported(RequestError):
    code = "schema_not_supported"
    default_hint = "Use a simpler JSON schema, or ask for JSON without one."
    param = "response_format"


class CheckpointError(EditingError):
    """Weights on disk cannot be used; nothing was loaded."""

    code = "checkpoint_error"
    default_hint = "Fetch the checkpoint again."


class CheckpointMissing(CheckpointError):
    code = "checkpoint_missing"
    default_hint = "Check the path, or fetch the checkpoint again."


class CheckpointCorrupt(CheckpointError):
    code = "checkpoint_corrupt"


class FingerprintMismatch(CheckpointError):
    code = "fingerprint_mismatch"
    default_hint = "Use the router and editor weights that were trained on this backbone."


class UnknownArchitecture(CheckpointError):
    code = "unknown_architecture"
    default_hint = "Register a backbone for this family; see docs/adding.md."


class CheckpointUnsupported(CheckpointError):
    code = "checkpoint_unsupported"
    default_hint = "Serve another checkpoint of this family."


class NotFinite(EditingError):
    """The model gave out NaN or infinity. `edits` are the ids of those that took part."""

    code = "model_not_finite"
    default_hint = (
        "Start the server with another --dtype (bf16, or fp32): numbers of this model may not fit "
        "the one it has. If fp32 does not help, its weights are damaged: fetch them again."
    )

    def __init__(
        self, message: str, *, edits: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.edits = edits


class ArtifactCorrupt(EditingError):
    """A stored edit is damaged. `field` names the part, where one can be named."""

    code = "artifact_corrupt"
    default_hint = "Restore the artifact from a backup, or roll this edit back and make it again."

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class StaleArtifact(EditingError):
    """A stored edit was made by other weights than those loaded."""

    code = "artifact_stale"
    default_hint = "Encode the edit again with the weights now loaded."


class TrainingError(EditingError):
    """A training cannot begin, or go on, as asked."""

    code = "training_refused"
    default_hint = "Change what the message names; docs/training.md says what is possible."


class AnotherPlan(TrainingError):
    """The run that lies in a folder was begun with other settings."""

    code = "training_another_plan"
    default_hint = "Begin again (--no-resume), or give a folder of its own (--work)."


class GenerationCancelled(EditingError):
    code = "generation_cancelled"
    default_hint = "Nothing to do: the caller asked for it."
