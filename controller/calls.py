"""How one worker is asked for one request: the path, the body, and how its stream is read.

Where client and worker speak the same wire, the bytes pass as they are. Where they do not, the
legacy package translates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.framing import Framer
from controller.legacy.bridge import LegacyAnswer, legacy_parameters
from controller.protocol import sse
from controller.protocol.legacy import GENERATE_STREAM
from controller.reply import Reply
from controller.routing import RoutingHints
from controller.upstream import Answer
from controller.worker_record import Wire, WorkerRecord


@dataclass(slots=True)  # frozen ones take four times as long to make
class RelayRequest:
    """A request as it goes to a worker; ``arrival`` on the monotonic clock."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    hints: RoutingHints
    arrival: float
    deadline: float | None = None  # when the answer is to be complete, on the same clock


@dataclass(slots=True)
class Call:
    """One request to one worker.

    With ``is_whole`` the client gets what the framer has at the end, and nothing before.
    """

    record: WorkerRecord
    path: str
    body: bytes
    framer: Framer
    is_translated: bool = False
    is_whole: bool = False

    def is_stream(self, answer: Answer) -> bool:
        """Whether an answer is a stream that the framer can read."""
        if answer.status != 200:
            return False
        return self.path == GENERATE_STREAM or answer.media_type == sse.MEDIA_TYPE


def can_ask(record: WorkerRecord, reply: Reply) -> bool:
    """Whether there is a way from this client's wire to this worker's."""
    if reply.wire is Wire.LEGACY:
        return record.reach.wire is Wire.LEGACY or record.reach.speaks_legacy_too
    return True


def call_for(request: RelayRequest, reply: Reply, record: WorkerRecord) -> Call:
    """The call.

    Raises:
        BadRequestError: the request cannot be put into the worker's words.
    """
    if reply.wire is Wire.OPENAI and record.reach.wire is Wire.LEGACY:
        parameters = legacy_parameters(request.path, request.body, record.reach.template)
        answer = LegacyAnswer(parameters, request_id=request.headers["x-request-id"])
        return Call(
            record,
            GENERATE_STREAM,
            parameters.body,
            answer,
            is_translated=True,
            is_whole=not parameters.stream,
        )
    return Call(record, request.path, request.body, reply.new_framer())
