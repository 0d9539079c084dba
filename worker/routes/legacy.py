"""LLaVA's and FastChat's worker routes, over this worker's engine.

Prompts come as text that somebody else has put into a template, with a marker for each image; the
answer goes back as frames whose text is cumulative. Whatever happens, the status is 200 and the
last frame says how it ended, as their clients expect it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field
from starlette.requests import ClientDisconnect

from controller.chassis.hangup import HangUp
from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl
from controller.protocol.errors import (
    InternalError,
    ParagoneError,
)
from controller.protocol.legacy import (
    FASTCHAT_MARKERS,
    GENERATE_STREAM,
    IMAGE_MARKER,
    ErrorCode,
    encode_frame,
)
from controller.protocol.message import Message
from worker.engine.protocol import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    SamplingParams,
    TextDelta,
)
from worker.lifecycle import Lifecycle
from worker.routes.body import CLIENT_CLOSED_REQUEST, BodyLimits, parse_request, read_body
from worker.routes.images import ImageReader
from worker.routes.legacy_stream import FrameStream
from worker.telemetry import Telemetry

_log = logging.getLogger(__name__)

GREEDY_BELOW = 0.001  # LLaVA's and FastChat's rule for the temperature
_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


def _as_list(value: object) -> object:
    """Stop strings and ids come alone, as a list, or as null."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class LegacyRequest(Message):
    """The parameters of a stream. Absent values are LLaVA's defaults."""

    prompt: str
    model: str | None = None  # without it, the only one
    images: Annotated[list[str], BeforeValidator(_as_list)] = Field(default_factory=list)
    temperature: float = Field(default=1.0, ge=0, le=100)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: float = Field(default=-1, ge=-1)  # -1: off
    repetition_penalty: float = Field(default=1.0, gt=0, le=100)
    presence_penalty: float = Field(default=0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0, ge=-2, le=2)
    max_new_tokens: int = Field(default=256, ge=1)  # 1 048 576 and the like: as many as fit
    stop: Annotated[list[str], BeforeValidator(_as_list)] = Field(default_factory=list)
    stop_token_ids: Annotated[list[int], BeforeValidator(_as_list)] = Field(default_factory=list)
    echo: bool = True

    def sampling(self) -> SamplingParams:
        """How the answer is chosen."""
        return SamplingParams(
            temperature=0.0 if self.temperature <= GREEDY_BELOW else self.temperature,
            top_p=self.top_p or 1.0,  # FastChat's clients mean "off" by 0
            top_k=int(self.top_k),
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            max_tokens=self.max_new_tokens,
            # A stop of spaces would end an answer at its first word; LLaVA's script sends one.
            stop=tuple(stop for stop in self.stop if stop.strip()),
            stop_token_ids=frozenset(self.stop_token_ids),
        )


def legacy_routes(
    lifecycle: Lifecycle,
    telemetry: Telemetry,
    image_reader: ImageReader,
    *,
    worker_id: str,
    body_limits: BodyLimits,
) -> APIRouter:
    """The routes, over what they need."""
    router = APIRouter(tags=["legacy"])
    headers = {"x-worker-id": worker_id}

    async def read(request: Request) -> LegacyRequest:
        return parse_request(await read_body(request, body_limits), LegacyRequest)

    async def begin(
        request: Request, asked: LegacyRequest, arrived: float
    ) -> AsyncGenerator[GenerationEvent]:
        """The events of an answer that has not begun."""
        model = asked.model or lifecycle.status().models[0].name
        served = lifecycle.serve(model)
        served.engine.check_room()
        parts = [ImagePart(type="image_url", image_url=ImageUrl(url=url)) for url in asked.images]
        images = await image_reader.read([ChatMessage(role="user", content=list(parts))])
        generation = GenerationRequest(
            request_id=request.state.request_id,
            model=model,
            prompt=_normal(asked.prompt) if images else asked.prompt,
            images=images,
            sampling=asked.sampling(),
            arrived=arrived,
        )
        return telemetry.watch(model, served.engine.generate(generation))

    @router.post(GENERATE_STREAM, response_model=None, openapi_extra=_BODY)
    async def generate_stream(request: Request) -> Response:
        """An answer as frames of cumulative text."""
        arrived = time.monotonic()
        try:
            asked = await read(request)
            async with HangUp(request.receive) as hang_up:
                events = await begin(request, asked, arrived)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except ParagoneError as exc:
            return FrameStream(_single(_error_frame(exc)), headers={**headers, **exc.headers()})
        if hang_up.happened:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        beginning = asked.prompt if asked.echo else ""
        frames = _frames(events, beginning, request.state.request_id)
        return FrameStream(frames, headers=headers, keep_alive=encode_frame(beginning))

    @router.post("/worker_generate", response_model=None, openapi_extra=_BODY)
    async def generate(request: Request) -> Response:
        """FastChat's: an answer as one object."""
        arrived, last = time.monotonic(), b""
        try:
            asked = await read(request)
            async with HangUp(request.receive):
                events = await begin(request, asked, arrived)
                beginning = asked.prompt if asked.echo else ""
                async with aclosing(_frames(events, beginning, request.state.request_id)) as frames:
                    async for frame in frames:
                        last = frame
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except ParagoneError as exc:
            last = _error_frame(exc)
        return Response(last.rstrip(b"\0"), media_type="application/json", headers=headers)

    return router


async def _frames(
    events: AsyncGenerator[GenerationEvent], beginning: str, request_id: str
) -> AsyncGenerator[bytes]:
    """The frames of an answer: text as it grows, then how it ended; or an error as the last."""
    text = beginning
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
                    yield encode_frame(text, finish_reason=None)
                elif isinstance(event, Finished):
                    usage = event.usage.model_dump(
                        include={"prompt_tokens", "completion_tokens", "total_tokens"}
                    )
                    yield encode_frame(text, usage=usage, finish_reason=None)
                    # FastChat's API server ends its own stream at a frame that adds no text.
                    yield encode_frame(text, usage=usage, finish_reason=event.reason.value)
    except ParagoneError as exc:
        yield _error_frame(exc)
    except Exception as exc:  # noqa: BLE001 - the edge of a response that has begun
        _log.exception("the answer broke off")
        yield _error_frame(
            InternalError(
                f"{type(exc).__name__} while answering; the worker's log has the cause under "
                f"request id {request_id}"
            )
        )


async def _single(frame: bytes) -> AsyncGenerator[bytes]:
    yield frame


def _error_frame(error: ParagoneError) -> bytes:
    return encode_frame(error.message, ErrorCode.WORKER)


def _normal(prompt: str) -> str:
    """A prompt with LLaVA's marker for images, whichever it came with."""
    for marker in FASTCHAT_MARKERS:
        prompt = prompt.replace(marker, IMAGE_MARKER)
    return prompt
