"""What can go wrong with the controller, in words that a column can show as they are."""

from __future__ import annotations

from collections.abc import Mapping

from controller.protocol import error_bodies


class ControllerError(Exception):
    """The controller could not be asked, or answered with an error.

    Args:
        message: what happened and what to do.
        code: the error's code (``worker_lost``, ``queue_full``, ...), or ``unreachable``.
        retry_after_seconds: when a second try may succeed, if the controller said so.
    """

    def __init__(
        self, message: str, *, code: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry_after_seconds = retry_after_seconds


def error_of_body(
    text: str, status: int, address: str, headers: Mapping[str, str]
) -> ControllerError:
    """What an answer that is none says.

    Args:
        text: its body.
        status: its HTTP status.
        address: who answered.
        headers: its headers.
    """
    detail = error_bodies.error_of_body(text, status)
    if detail is None:
        return ControllerError(
            f"HTTP {status} from {address}, without an explanation: "
            f"{text[:200] or 'an empty body'}",
            code=f"http_{status}",
        )
    retry_after = headers.get("retry-after", "")
    return ControllerError(
        detail.message,
        code=detail.code or detail.type,
        retry_after_seconds=float(retry_after) if retry_after.isdigit() else None,
    )
