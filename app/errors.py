"""What the service can answer instead of a result, drawn as a tree.

    ServiceError
    ├── BadRequest 400      InvalidHttp InvalidJson MissingField
    │                       InvalidField UnknownField ImageBase64Invalid
    │                       RemoteImagesDisabled UnsupportedParameter
    │                       TooManyImages
    ├── InvalidApiKey 401
    ├── Forbidden 403       HostNotAllowed InsufficientScope
    ├── NotFound 404        RouteNotFound EditNotFound VersionNotFound KeyNotFound
    │                       AnswerNotFound FeedbackNotFound ModelNotFound
    ├── MethodNotAllowed 405
    ├── RequestTimeout 408
    ├── Conflict 409        IdempotencyInProgress EditCommitted EditNotCommitted EditNotActive
    │                       EditStale KeyLabelTaken LastAdminKey FeedbackClosed
    │                       NoQuestionEncoder
    ├── VersionMismatch 412
    ├── TooLarge 413        BodyTooLarge ImageTooLarge ImageTooManyPixels
    ├── WrongType 415       ContentTypeUnsupported ImageFormatUnsupported
    ├── Unprocessable 422   ImageUndecodable EditNotEffective EditConflicts
    │                       IdempotencyMismatch
    │                       (and the library's context_too_long, target_too_long,
    │                       image_not_readable_by_model, ...)
    ├── TooMany 429         QueueFull RateLimited FeedbackFull
    ├── InternalError 500    ModelNotFinite StoreDamaged
    └── Unavailable 503     Starting Draining StoreUnavailable StoreLost VersionNotReached
                            EngineRestarting EngineFailed

    StartupError            the server refuses to start; the message names the thing

Every class is mapped to HTTP once, in `app/handlers.py`. The answer is general, the log full.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from editing_core.errors import NotFinite, RequestError

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 1000
_MAX_PARAM = 100


class ServiceError(Exception):
    """An answer of the form `{"error": {...}}`. `hint` says what to do and is never empty."""

    status: int = 500
    kind: str = "server_error"
    code: str = "internal_error"
    retryable: bool = False
    default_hint: str = "See the server's log under this request id."

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        retry_after_s: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = _shortened(message, _MAX_MESSAGE)
        self.param = param if param is None else _shortened(param, _MAX_PARAM)
        self.hint = hint or self.default_hint
        self.retry_after_s = retry_after_s
        self.details = dict(details or {})

    def fields(self, request_id: str) -> dict[str, Any]:
        """What is said of it, as JSON: to the client now, or kept where nobody waits any more."""
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
            "hint": self.hint,
            "retryable": self.retryable,
            "request_id": request_id,
            **self.details,
        }


def _shortened(text: str, most: int) -> str:
    """What came in may be part of what is said of it, but not at its full length."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


class InternalError(ServiceError):
    """Something nobody foresaw. The log has the traceback."""


class ModelNotFinite(ServiceError):
    """The model gave NaN or infinity instead of an answer."""

    code = "model_not_finite"


class StoreDamaged(ServiceError):
    """What is needed of the database was changed or removed by somebody else, or by the disk."""

    code = "store_damaged"
    default_hint = "Stop the server, run `errata doctor`, and restore the database from a backup."


class BadRequest(ServiceError):
    status = 400
    kind = "invalid_request_error"
    default_hint = "Change the request and send it again. The fields are described under /docs."


class InvalidHttp(BadRequest):
    code = "invalid_http"
    default_hint = "Send HTTP/1.1 with one Host header, and headers of 64 KiB at most."


class InvalidJson(BadRequest):
    code = "invalid_json"
    default_hint = "Send one JSON value in UTF-8, without NaN, repeated keys or deep nesting."


class MissingField(BadRequest):
    code = "missing_field"
    default_hint = "Add the field. The fields of every request are described under /docs."


class InvalidField(BadRequest):
    code = "invalid_field"


class UnknownField(BadRequest):
    code = "unknown_field"
    default_hint = "Remove the field, or check its spelling. The known ones are under /docs."


class ImageBase64Invalid(BadRequest):
    code = "image_base64_invalid"
    default_hint = "Send a data URI such as data:image/png;base64,... or plain standard base64."


class RemoteImagesDisabled(BadRequest):
    code = "remote_images_disabled"
    default_hint = "Fetch the picture yourself and send its bytes as a data URI."


class UnsupportedParameter(BadRequest):
    code = "unsupported_parameter"


class InvalidApiKey(ServiceError):
    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"
    default_hint = "Send Authorization: Bearer and a key that `errata keys create` made."


class TooManyImages(BadRequest):
    code = "too_many_images"
    default_hint = "Leave pictures of earlier turns out; edits go by the latest one."


class Forbidden(ServiceError):
    status = 403
    kind = "permission_error"


class HostNotAllowed(Forbidden):
    code = "host_not_allowed"
    default_hint = "Address the server as localhost or 127.0.0.1, or set ERRATA_ALLOWED_HOSTS."


class InsufficientScope(Forbidden):
    code = "insufficient_scope"
    default_hint = "Use a key with that scope; `errata keys create` makes one."


class NotFound(ServiceError):
    status = 404
    kind = "invalid_request_error"


class RouteNotFound(NotFound):
    code = "route_not_found"
    default_hint = "The routes are listed under /docs."


class EditNotFound(NotFound):
    code = "edit_not_found"
    default_hint = "List the edits with GET /edits."


class KeyNotFound(NotFound):
    code = "key_not_found"
    default_hint = "List the keys with GET /admin/keys."


class VersionNotFound(NotFound):
    code = "version_not_found"
    default_hint = "GET /versions tells the newest version; 0 is the base model."


class AnswerNotFound(NotFound):
    code = "answer_not_found"
    default_hint = (
        "Only the newest answers are kept, and none of before the last start. "
        "ERRATA_ANSWER_MEMORY_MIB is how many; 0 keeps none."
    )


class FeedbackNotFound(NotFound):
    code = "feedback_not_found"
    default_hint = "List what was reported with GET /feedback."


class ModelNotFound(NotFound):
    code = "model_not_found"
    default_hint = "GET /v1/models lists them."


class MethodNotAllowed(ServiceError):
    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"
    default_hint = "The Allow header names the methods of this path."


class RequestTimeout(ServiceError):
    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"
    retryable = True
    default_hint = (
        "Send the whole body without pauses. ERRATA_BODY_TIMEOUT_S is how long it may take."
    )


class Conflict(ServiceError):
    status = 409
    kind = "conflict_error"


class IdempotencyInProgress(Conflict):
    code = "idempotency_in_progress"
    retryable = True
    default_hint = "The first request with this Idempotency-Key still runs. Try again shortly."


class EditCommitted(Conflict):
    code = "edit_committed"
    default_hint = "Take it back with POST /admin/edits/{id}/rollback."


class EditNotCommitted(Conflict):
    code = "edit_not_committed"
    default_hint = "GET /edits/{id} says how it stands. A pending one can be cancelled."


class EditNotActive(Conflict):
    code = "edit_not_active"
    default_hint = (
        "Only the scope of an active or superseded edit can be changed. GET /edits/{id} says how "
        "it stands; put a rolled-back one back first."
    )


class EditStale(Conflict):
    code = "edit_stale"
    default_hint = (
        "Stop the server and run `errata reencode`, which makes it anew; or send "
        '"force": true to put it back without being served until then.'
    )


class KeyLabelTaken(Conflict):
    code = "key_label_taken"
    default_hint = "Labels stay in the audit trail, those of revoked keys too. Choose another one."


class LastAdminKey(Conflict):
    code = "last_admin_key"
    default_hint = "Make another key with the scope admin first, or set ERRATA_ADMIN_KEY."


class FeedbackClosed(Conflict):
    code = "feedback_closed"
    default_hint = "GET /feedback says what came of it."


class NoQuestionEncoder(Conflict):
    code = "no_question_encoder"
    default_hint = (
        "`make install` installs the one that ships; ERRATA_QUESTION_ENCODER names another one."
    )


class VersionMismatch(ServiceError):
    status = 412
    kind = "invalid_request_error"
    code = "version_mismatch"
    default_hint = "Somebody else made a change. Read GET /versions, decide again, and retry."


class TooLarge(ServiceError):
    status = 413
    kind = "invalid_request_error"


class BodyTooLarge(TooLarge):
    code = "body_too_large"
    default_hint = "Send a smaller body: scale the picture down or compress it."


class ImageTooLarge(TooLarge):
    code = "image_too_large"
    default_hint = "Send a smaller file: scale the picture down or compress it."


class ImageTooManyPixels(TooLarge):
    code = "image_too_many_pixels"
    default_hint = "Scale the picture down."


class WrongType(ServiceError):
    status = 415
    kind = "invalid_request_error"


class ContentTypeUnsupported(WrongType):
    code = "content_type_unsupported"
    default_hint = "Send Content-Type: application/json, without Content-Encoding."


class ImageFormatUnsupported(WrongType):
    code = "image_format_unsupported"
    default_hint = "Send a PNG, JPEG, WebP or GIF."


class Unprocessable(ServiceError):
    status = 422
    kind = "invalid_request_error"


class ImageUndecodable(Unprocessable):
    code = "image_undecodable"
    default_hint = "Send a PNG, JPEG, WebP or GIF that opens in a viewer."


class EditNotEffective(Unprocessable):
    code = "edit_not_effective"
    default_hint = (
        'Reword the prompt or shorten the target, or send "verify": "report" to keep it anyway.'
    )


class EditConflicts(Unprocessable):
    code = "edit_conflicts"
    default_hint = (
        'Name the edits of conflicts_with under "supersedes", roll them back, or send '
        '"verify": "report" to keep both.'
    )


class IdempotencyMismatch(Unprocessable):
    code = "idempotency_mismatch"
    default_hint = "Use a new Idempotency-Key for a different request."


class TooMany(ServiceError):
    status = 429
    kind = "rate_limit_error"
    retryable = True
    default_hint = "Wait as long as Retry-After says and send the request again."


class QueueFull(TooMany):
    code = "queue_full"


class RateLimited(TooMany):
    code = "rate_limited"


class FeedbackFull(TooMany):
    code = "feedback_full"
    default_hint = "Resolve or dismiss some of it: GET /feedback?status=open."


class Unavailable(ServiceError):
    status = 503
    retryable = True
    default_hint = "Wait as long as Retry-After says and send the request again."


class Starting(Unavailable):
    code = "starting"
    default_hint = "The model is being loaded. GET /health/ready tells when it is done."


class Draining(Unavailable):
    code = "draining"
    default_hint = "This server is shutting down. Send the request to another one, or later."


class EngineRestarting(Unavailable):
    """What runs the model has ended. Nothing that was acknowledged is lost."""

    code = "engine_restarting"
    default_hint = "The model is being loaded again. Send the request again after Retry-After."


class EngineFailed(EngineRestarting):
    """It is not started again."""

    code = "engine_failed"
    default_hint = "Restart the server; its log says why the model's engine ended."


class StoreUnavailable(Unavailable):
    code = "store_unavailable"
    default_hint = "The database does not answer; nothing was changed. Check disk and locks, retry."


class StoreLost(StoreUnavailable):
    """This server writes nothing more, and answers nothing: its database is not its own."""

    code = "store_lost"
    default_hint = (
        "One server writes a database. Stop this one, or restart it with the --data-dir and "
        "--database-url where its database lies now."
    )


class VersionNotReached(Unavailable):
    code = "version_not_reached"
    default_hint = "This server has not seen that version yet. Retry, or check the number."


def as_service_error(error: Exception) -> ServiceError:
    """What a client is told. Whatever nobody foresaw is logged in full and told in general."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestError):
        told = Unprocessable(error.message, param=error.param, hint=error.hint)
        told.code = error.code
        return told
    if isinstance(error, NotFinite):
        return ModelNotFinite(f"{error.message[0].upper()}{error.message[1:]}.", hint=error.hint)
    logger.error("unforeseen error", exc_info=error)
    return InternalError("Something went wrong in the server.")


class StartupError(Exception):
    """The server cannot run as asked. The message names the thing that is in the way."""


class StoreCorrupt(StartupError):
    """History on disk does not add up; serving it could serve wrong answers."""
