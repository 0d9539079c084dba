"""The error tree: what can go wrong, the HTTP status and the code that a client sees.

::

    ParagoneError                      code, status, type; renders OpenAI's error body
    ├── BadRequestError          400   the request cannot be understood or carried out
    │   ├── BadImageError        400   bad_image: an image cannot be read, fetched or accepted
    │   ├── ContextLengthError   400   context_length_exceeded: prompt + answer do not fit
    │   └── UnsupportedError     400   unsupported: this model or server cannot do that
    ├── AuthenticationError      401   invalid_api_key
    ├── PermissionDeniedError    403   permission_denied
    ├── NotFoundError            404   not_found
    │   └── ModelNotFoundError   404   model_not_found: nobody ever served this name
    ├── RequestTimeoutError      408   request_timeout: the body did not arrive in time
    ├── ConflictError            409   conflict: somebody else holds what was asked for
    ├── PayloadTooLargeError     413   payload_too_large
    ├── QueueFullError           429   queue_full, with Retry-After
    ├── RateLimitError           429   rate_limit_exceeded: this key's, with Retry-After
    ├── InternalError            500   internal_error: our fault; the log has the traceback
    │   ├── OutOfMemoryError     500   out_of_memory: needed and free
    │   ├── DeviceLostError      500   device_lost: nothing runs on the device until a restart
    │   └── LegacyWorkerError    500   a legacy worker says that it failed, or nothing readable
    ├── WorkerLostError          502   worker_lost: the worker went away during the answer
    ├── UnavailableError         503   with Retry-After
    │   ├── NoLiveWorkerError    503   no_live_worker: the name is known, nobody serves it now
    │   ├── ModelUnheardOfError  503   model_unheard_of: nobody has told of this name yet
    │   ├── ModelLoadingError    503   model_loading: a worker is loading it, with progress
    │   ├── QueueTimeoutError    503   queue_timeout: no worker had room for it in time
    │   └── DrainingError        503   draining: this process is shutting down
    ├── DeadlineError            504   deadline_exceeded
    └── RequestLoopError         508   request_loop: controllers pass it to each other in a circle
"""

from __future__ import annotations

import math
from typing import ClassVar

from controller.protocol.message import Message


class ErrorDetail(Message):
    """The inside of OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Message):
    """OpenAI's error body: ``{"error": {"message", "type", "param", "code"}}``."""

    error: ErrorDetail


class ParagoneError(Exception):
    """An error with a cause that a client can act upon.

    Args:
        message: what happened, what was expected, and what to do.
        param: the request field that is to blame, if one is.
        retry_after_seconds: when a retry may succeed, for 429 and 503.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> ErrorBody:
        """The error as OpenAI's clients expect it."""
        detail = ErrorDetail(message=self.message, type=self.type, param=self.param, code=self.code)
        return ErrorBody(error=detail)

    def headers(self) -> dict[str, str]:
        """HTTP headers that go with the error.

        ``x-error-code`` is its reason, for proxies and clients that do not read bodies;
        ``Retry-After`` is in whole seconds, rounded up.
        """
        headers = {"x-error-code": self.code}
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_seconds)))
        return headers


class BadRequestError(ParagoneError):
    """The request cannot be understood or carried out."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class BadImageError(BadRequestError):
    """An image cannot be read, fetched or accepted."""

    code = "bad_image"


class ContextLengthError(BadRequestError):
    """Prompt and answer do not fit into the model's context."""

    code = "context_length_exceeded"


class UnsupportedError(BadRequestError):
    """This model or server cannot do what was asked."""

    code = "unsupported"


class AuthenticationError(ParagoneError):
    """No key, or a wrong one."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"


class PermissionDeniedError(ParagoneError):
    """The key is known and may not do this."""

    status = 403
    code = "permission_denied"
    type = "permission_error"


class NotFoundError(ParagoneError):
    """There is nothing at this address."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"


class ModelNotFoundError(NotFoundError):
    """Nobody serves, or ever served, a model of this name."""

    code = "model_not_found"


class RequestTimeoutError(ParagoneError):
    """The request's body did not arrive in time."""

    status = 408
    code = "request_timeout"
    type = "invalid_request_error"


class ConflictError(ParagoneError):
    """Somebody else holds what was asked for."""

    status = 409
    code = "conflict"
    type = "invalid_request_error"


class PayloadTooLargeError(ParagoneError):
    """The body is larger than the limit."""

    status = 413
    code = "payload_too_large"
    type = "invalid_request_error"


class QueueFullError(ParagoneError):
    """The bounded queue is full; the request was not accepted."""

    status = 429
    code = "queue_full"
    type = "rate_limit_error"


class RateLimitError(ParagoneError):
    """This API key has used up what it may use for now."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class InternalError(ParagoneError):
    """Our fault. The message names the kind of failure, the log holds the traceback."""


class OutOfMemoryError(InternalError):
    """The device has too little memory for this request."""

    code = "out_of_memory"


class DeviceLostError(InternalError):
    """The device's context is dead: no request can run until the process has been restarted."""

    code = "device_lost"


class LegacyWorkerError(InternalError):
    """A legacy worker says that it failed, or says nothing that can be read."""


class WorkerLostError(ParagoneError):
    """The worker went away before its answer was complete; what had arrived stays valid."""

    status = 502
    code = "worker_lost"


class UnavailableError(ParagoneError):
    """Nothing is wrong with the request; try again."""

    status = 503
    code = "unavailable"
    type = "service_unavailable_error"


class NoLiveWorkerError(UnavailableError):
    """The model is known and no worker serves it at the moment."""

    code = "no_live_worker"


class ModelUnheardOfError(UnavailableError):
    """This process has just started: the name may be wrong, or its worker not back yet."""

    code = "model_unheard_of"


class ModelLoadingError(UnavailableError):
    """A worker is loading the model."""

    code = "model_loading"


class QueueTimeoutError(UnavailableError):
    """The request waited its time in the queue, and no worker had room for it."""

    code = "queue_timeout"


class DrainingError(UnavailableError):
    """This process is shutting down and takes no new requests."""

    code = "draining"


class RequestLoopError(ParagoneError):
    """The request has passed through this process before: nobody on its way will answer it."""

    status = 508
    code = "request_loop"
    explanation: ClassVar[str] = (
        "This request has passed through the same controller before: controllers are on each "
        "other's lists of workers in a circle; take one of them off the other's list"
    )


class PartialAnswerBody(ErrorBody):
    """An error that cut a whole answer off, with what there was of it.

    ``partial`` has the texts of the choices so far, by index. A stream has sent them already.
    """

    partial: list[str]


class DeadlineError(ParagoneError):
    """The request's deadline passed before its answer was complete; what there was is valid.

    ``partial`` is set by who has it: the texts of the choices so far.
    """

    status = 504
    code = "deadline_exceeded"
    type = "timeout_error"
    partial: tuple[str, ...] | None = None

    def body(self) -> ErrorBody:
        """The error, with the partial answer where there is one to be kept."""
        body = super().body()
        if self.partial is None:
            return body
        return PartialAnswerBody(error=body.error, partial=list(self.partial))
