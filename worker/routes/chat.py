"""``POST /v1/chat/completions``: OpenAI's chat completions over this worker's engine."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from controller.chassis.hangup import HangUp
from controller.chassis.openapi import CHAT_COMPLETIONS
from controller.protocol import sse
from controller.protocol.chat import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Choice,
    ChunkChoice,
    Delta,
    Metrics,
    Usage,
)
from controller.protocol.errors import InternalError, ParagoneError
from worker.engine.protocol import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    SamplingParams,
    TextDelta,
)
from worker.lifecycle import Lifecycle
from worker.routes.body import BodyLimits, parse_chat_request, read_body
from worker.routes.event_stream import EventStream
from worker.routes.images import ImageReader
from worker.telemetry import Telemetry

_log = logging.getLogger(__name__)

# What nginx logs for a client that went away; it never reaches one.
CLIENT_CLOSED_REQUEST = 499


def chat_routes(
    lifecycle: Lifecycle,
    telemetry: Telemetry,
    image_reader: ImageReader,
    *,
    worker_id: str,
    body_limits: BodyLimits,
) -> APIRouter:
    """The route, over what it needs."""
    router = APIRouter(tags=["openai"])
    headers = {"x-worker-id": worker_id}

    @router.post(CHAT_COMPLETIONS, response_model=None)
    async def create_chat_completion(request: Request) -> Response:
        """An answer, whole or as server-sent events."""
        arrived = time.monotonic()
        try:
            chat = parse_chat_request(await read_body(request, body_limits))
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        served = lifecycle.serve(chat.model)
        async with HangUp(request.receive):
            served.engine.check_room()
            generation = GenerationRequest(
                request_id=request.state.request_id,
                model=chat.model,
                messages=tuple(chat.messages),
                images=await image_reader.read(chat.messages),
                image_process_mode=chat.image_process_mode,
                chat_template=chat.chat_template,
                sampling=_sampling_params(chat),
                arrived=arrived,
            )
            events = telemetry.watch(chat.model, served.engine.generate(generation))
            answer = _Answer(chat, request.state.request_id)
            if not chat.stream:
                whole = await answer.whole(events)
                return Response(
                    whole.model_dump_json(exclude_none=True),
                    media_type="application/json",
                    headers=headers,
                )
            try:
                # Whatever fails until here has its own HTTP status.
                await anext(events)
            except BaseException:
                await events.aclose()
                raise
            return EventStream(answer.stream(events), headers=headers)
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    return router


def _sampling_params(chat: ChatCompletionRequest) -> SamplingParams:
    return SamplingParams(
        temperature=chat.temperature,
        top_p=chat.top_p,
        top_k=chat.top_k,
        seed=chat.seed,
        max_tokens=chat.token_limit,
        stop=chat.stop_strings,
    )


class _Answer:
    """Puts an engine's events into OpenAI's words."""

    def __init__(self, chat: ChatCompletionRequest, request_id: str) -> None:
        self._chat = chat
        self._request_id = request_id
        self._id = "chatcmpl-" + uuid.uuid4().hex
        self._created = int(time.time())
        self._has_begun = False

    async def whole(self, events: AsyncGenerator[GenerationEvent]) -> ChatCompletion:
        """The answer in one piece."""
        text: list[str] = []
        finished: Finished | None = None
        async with aclosing(events):
            async for event in events:
                if isinstance(event, TextDelta):
                    text.append(event.text)
                elif isinstance(event, Finished):
                    finished = event
        if finished is None:
            raise RuntimeError("an engine ends each answer with Finished or an error")
        message = AnswerMessage(content="".join(text))
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._chat.model,
            choices=[Choice(message=message, finish_reason=finished.reason)],
            usage=finished.usage,
            metrics=finished.metrics,
        )

    async def stream(self, events: AsyncGenerator[GenerationEvent]) -> AsyncGenerator[bytes]:
        """The answer as encoded events; a failure is the last of them."""
        async with aclosing(events):
            try:
                async for event in events:
                    if isinstance(event, TextDelta):
                        yield self._chunk(self._delta(event.text))
                    elif isinstance(event, Finished):
                        yield self._end(event)
            except ParagoneError as exc:
                yield sse.encode_error(exc.body())
                return
            except Exception as exc:  # noqa: BLE001 - the edge of a response that has begun
                _log.exception("the answer broke off")
                yield sse.encode_error(
                    InternalError(
                        f"{type(exc).__name__} while answering; the worker's log has the cause "
                        f"under request id {self._request_id}"
                    ).body()
                )
                return
        yield sse.DONE

    def _end(self, event: Finished) -> bytes:
        choice = self._delta(None).model_copy(update={"finish_reason": event.reason})
        last = self._chunk(choice, metrics=event.metrics)
        if self._chat.wants_usage:
            last += self._chunk(None, usage=event.usage, metrics=event.metrics)
        return last

    def _delta(self, text: str | None) -> ChunkChoice:
        """The first delta of an answer says who speaks, even if it says nothing."""
        role = None if self._has_begun else "assistant"
        self._has_begun = True
        return ChunkChoice(delta=Delta(role=role, content=text))

    def _chunk(
        self,
        choice: ChunkChoice | None,
        *,
        usage: Usage | None = None,
        metrics: Metrics | None = None,
    ) -> bytes:
        return sse.encode(
            ChatCompletionChunk(
                id=self._id,
                created=self._created,
                model=self._chat.model,
                choices=[] if choice is None else [choice],
                usage=usage,
                metrics=metrics,
            )
        )
