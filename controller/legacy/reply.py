"""An answer on its way to a client of LLaVA's or FastChat's wire."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Send

from controller.framing import Framer
from controller.legacy.frames import FrameFramer
from controller.protocol.errors import (
    ErrorBody,
    NoLiveWorkerError,
    NotFoundError,
    ParagoneError,
    UnavailableError,
    WorkerLostError,
)
from controller.protocol.legacy import ErrorCode, encode_frame
from controller.reply import Reply
from controller.upstream import Headers
from controller.worker_record import Wire


class LegacyReply(Reply):
    """Frames; whatever happens, the status is 200 and the last frame says how it ended.

    Args:
        send: the client.
    """

    wire = Wire.LEGACY
    passes_refusals = False
    keep_alive_seconds = 2.5  # LLaVA's controller waits 5 s for each piece, its page 10 s

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        self._beginning = ""  # the cumulative text of an answer that says nothing yet

    def expect(self, *, stream: bool, beginning: str) -> None:  # noqa: ARG002  # always a stream
        """What the client asked for."""
        self.wants_stream = True
        self._beginning = beginning

    def new_framer(self) -> Framer:
        """Cuts at the ends of frames."""
        return FrameFramer()

    async def start_stream(self, headers: Headers) -> None:
        """The legacy programs send no Content-Type."""
        kept = [(name, value) for name, value in headers if name.startswith(b"x-")]
        await self.start(200, kept)

    async def keep_alive(self) -> None:
        """A frame whose text is as long as the last one: all clients take it."""
        if self.status is None:
            await self.start_stream([])
        await self.write(encode_frame(self._beginning))

    async def fail(self, error: ParagoneError) -> None:
        """One frame with an error code, and the end."""
        self.error_code = error.code
        await self._fail(error.message, _code(error), error.headers())

    async def fail_with(
        self,
        status: int,  # noqa: ARG002  # the wire has no other status than 200
        headers: Mapping[str, str],
        body: ErrorBody,
    ) -> None:
        """Likewise, with an error that came from elsewhere."""
        await self._fail(body.error.message, ErrorCode.WORKER, headers)

    async def _fail(self, message: str, code: ErrorCode, headers: Mapping[str, str]) -> None:
        if self.status is None:
            await self.start_stream([(k.encode(), v.encode()) for k, v in headers.items()])
        await self.write(encode_frame(message, code))
        await self.end()


def _code(error: ParagoneError) -> ErrorCode:
    match error:
        case NoLiveWorkerError() | NotFoundError():
            return ErrorCode.NO_WORKER
        case WorkerLostError() | UnavailableError():
            return ErrorCode.UNREACHABLE
        case _:
            return ErrorCode.WORKER
