"""From an engine's answers to an HTTP response, whole or streamed, in either OpenAI format."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from starlette.responses import Response

from controller.protocol import sse
from controller.protocol.chat import Metrics, Usage
from controller.protocol.errors import DeadlineError, InternalError, ParagoneError
from controller.protocol.message import Message
from controller.protocol.sampling import SamplingFields
from worker.engine.protocol import Engine, Finished, GenerationRequest, TextDelta
from worker.engine.tokens import ShownToken
from worker.routes.choices import Choices, overall_metrics, total_usage
from worker.routes.event_stream import EventStream
from worker.telemetry import Telemetry

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class WholeChoice:
    """One answer, once it is complete."""

    text: str
    tokens: tuple[ShownToken, ...]
    finished: Finished


class Format(Protocol):
    """One of OpenAI's formats, for one request."""

    def piece(self, index: int, delta: TextDelta) -> Message:
        """An event: more of a choice."""
        ...

    def end(self, index: int, finished: Finished) -> Message:
        """An event: the end of a choice."""
        ...

    def total(self, usage: Usage, metrics: Metrics) -> Message:
        """An event: what all choices came to."""
        ...

    def whole(self, choices: Sequence[WholeChoice], usage: Usage, metrics: Metrics) -> Message:
        """The whole answer."""
        ...


@dataclass(slots=True)
class _Made:
    """A choice in the making."""

    text: list[str] = field(default_factory=list)
    tokens: list[ShownToken] = field(default_factory=list)
    finished: Finished | None = None


class Answering:
    """Has requests answered by an engine.

    Args:
        telemetry: what is counted.
        worker_id: of this process.
    """

    def __init__(self, telemetry: Telemetry, *, worker_id: str) -> None:
        self._telemetry = telemetry
        self._headers: Mapping[str, str] = {"x-worker-id": worker_id}

    async def answer(
        self,
        engine: Engine,
        asked: Sequence[GenerationRequest],
        fields: SamplingFields,
        written: Format,
        request_id: str,
    ) -> Response:
        """A response; whatever fails before it begins has its own HTTP status.

        Args:
            engine: who answers.
            asked: one a choice, all of one model.
            fields: of the request.
            written: its format.
            request_id: of the request.

        Raises:
            ParagoneError: there is no answer, and why.
        """
        choices = Choices(
            [self._telemetry.watch(each.model, engine.generate(each)) for each in asked]
        )
        await choices.begin()
        if fields.stream:
            pieces = _stream(choices, len(asked), fields, written, request_id)
            return EventStream(pieces, close=choices.aclose, headers=self._headers)
        whole = await _whole(choices, len(asked), fields, written)
        return Response(
            whole.model_dump_json(exclude_none=True),
            media_type="application/json",
            headers=dict(self._headers),
        )


async def _whole(choices: Choices, count: int, fields: SamplingFields, written: Format) -> Message:
    made = [_Made() for _ in range(count)]
    try:
        async with aclosing(choices.events()) as events:
            async for index, event in events:
                if isinstance(event, TextDelta):
                    made[index].text.append(event.text)
                    made[index].tokens.extend(event.tokens)
                else:
                    made[index].finished = event
    except DeadlineError as exc:
        exc.partial = tuple("".join(each.text) for each in made)
        raise
    whole = [
        WholeChoice("".join(each.text), tuple(each.tokens), _end(each.finished)) for each in made
    ]
    ends = [each.finished for each in whole]
    return written.whole(whole, total_usage(ends, per_prompt=fields.n), overall_metrics(ends))


async def _stream(
    choices: Choices, count: int, fields: SamplingFields, written: Format, request_id: str
) -> AsyncGenerator[bytes]:
    """The answer as encoded events; a failure is the last of them."""
    ends: list[Finished | None] = [None] * count
    async with aclosing(choices.events()) as events:
        try:
            async for index, event in events:
                if isinstance(event, TextDelta):
                    yield sse.encode(written.piece(index, event))
                    continue
                ends[index] = event
                last = sse.encode(written.end(index, event))
                if None not in ends and fields.wants_usage:
                    finished = [_end(each) for each in ends]
                    usage = total_usage(finished, per_prompt=fields.n)
                    last += sse.encode(written.total(usage, overall_metrics(finished)))
                yield last
        except ParagoneError as exc:
            yield sse.encode_error(exc.body())
            return
        except Exception as exc:  # noqa: BLE001 - the edge of a response that has begun
            _log.exception("the answer broke off")
            yield sse.encode_error(
                InternalError(
                    f"{type(exc).__name__} while answering; the worker's log has the cause "
                    f"under request id {request_id}"
                ).body()
            )
            return
    yield sse.DONE


def _end(finished: Finished | None) -> Finished:
    if finished is None:
        raise RuntimeError("an engine ends each answer with Finished or an error")
    return finished
