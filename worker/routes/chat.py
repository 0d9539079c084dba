"""``POST /v1/chat/completions``: OpenAI's chat completions over this worker's engine."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from controller.chassis.hangup import HangUp
from controller.chassis.openapi import CHAT_COMPLETIONS
from controller.protocol.chat import (
    AnswerMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    LikelyToken,
    Metrics,
    TokenLogprob,
    Usage,
)
from controller.protocol.errors import BadRequestError
from worker.engine import tokens as engine
from worker.engine.protocol import Finished, GenerationRequest, TextDelta
from worker.lifecycle import Lifecycle
from worker.routes.answering import Answering, WholeChoice
from worker.routes.body import CLIENT_CLOSED_REQUEST, BodyLimits, parse_request, read_body
from worker.routes.images import ImageReader
from worker.routes.sampling import sampling_params, timeout_seconds


def chat_routes(
    lifecycle: Lifecycle,
    answering: Answering,
    image_reader: ImageReader,
    *,
    body_limits: BodyLimits,
) -> APIRouter:
    """The route, over what it needs."""
    router = APIRouter(tags=["openai"])

    @router.post(CHAT_COMPLETIONS, response_model=None)
    async def create_chat_completion(request: Request) -> Response:
        """An answer, whole or as server-sent events."""
        arrived = time.monotonic()
        try:
            chat = parse_request(await read_body(request, body_limits), ChatCompletionRequest)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        logprobs = _logprobs(chat)
        sampling = [
            sampling_params(chat, logprobs=logprobs, choice=choice) for choice in range(chat.n)
        ]
        timeout = timeout_seconds(chat, request.headers)
        served = lifecycle.serve(chat.model)
        request_id = request.state.request_id
        async with HangUp(request.receive):
            served.engine.check_room(chat.n)
            images = await image_reader.read(chat.messages)
            asked = [
                GenerationRequest(
                    request_id=request_id,
                    model=chat.model,
                    messages=tuple(chat.messages),
                    images=images,
                    image_process_mode=chat.image_process_mode,
                    chat_template=chat.chat_template,
                    sampling=each,
                    arrived=arrived,
                    timeout_seconds=timeout,
                )
                for each in sampling
            ]
            written = ChatFormat(chat.model, tells_tokens=logprobs is not None)
            return await answering.answer(served.engine, asked, chat, written, request_id)
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    return router


def _logprobs(chat: ChatCompletionRequest) -> int | None:
    """How many of the likeliest tokens are told beside each; None: nothing is."""
    if chat.logprobs:
        return chat.top_logprobs or 0
    if chat.top_logprobs:
        raise BadRequestError(
            "top_logprobs: it tells what stands beside logprobs; set logprobs to true",
            param="top_logprobs",
        )
    return None


class ChatFormat:
    """Chat completions; see `worker.routes.answering.Format`.

    Args:
        model: who answers.
        tells_tokens: whether the tokens' probabilities were asked for.
    """

    def __init__(self, model: str, *, tells_tokens: bool) -> None:
        self._model = model
        self._tells_tokens = tells_tokens
        self._id = "chatcmpl-" + uuid.uuid4().hex
        self._created = int(time.time())
        self._has_begun: set[int] = set()

    def piece(self, index: int, delta: TextDelta) -> ChatCompletionChunk:
        """An event: more of a choice."""
        return self._chunk(
            ChunkChoice(
                index=index,
                delta=self._delta(index, delta.text),
                logprobs=_told(delta.tokens) if delta.tokens else None,
            )
        )

    def end(self, index: int, finished: Finished) -> ChatCompletionChunk:
        """An event: the end of a choice."""
        choice = ChunkChoice(
            index=index,
            delta=self._delta(index, None),
            finish_reason=finished.reason,
            stop_reason=finished.stop_reason,
        )
        return self._chunk(choice, metrics=finished.metrics)

    def total(self, usage: Usage, metrics: Metrics) -> ChatCompletionChunk:
        """An event: what all choices came to."""
        return self._chunk(None, usage=usage, metrics=metrics)

    def whole(
        self, choices: Sequence[WholeChoice], usage: Usage, metrics: Metrics
    ) -> ChatCompletion:
        """The whole answer."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[
                Choice(
                    index=index,
                    message=AnswerMessage(content=each.text),
                    # Whoever asked goes through the list, so that it is there without tokens too.
                    logprobs=_told(each.tokens) if self._tells_tokens else None,
                    finish_reason=each.finished.reason,
                    stop_reason=each.finished.stop_reason,
                )
                for index, each in enumerate(choices)
            ],
            usage=usage,
            metrics=metrics,
        )

    def _delta(self, index: int, text: str | None) -> Delta:
        """The first delta of a choice says who speaks, even if it says nothing."""
        role = None if index in self._has_begun else "assistant"
        self._has_begun.add(index)
        return Delta(role=role, content=text)

    def _chunk(
        self,
        choice: ChunkChoice | None,
        *,
        usage: Usage | None = None,
        metrics: Metrics | None = None,
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[] if choice is None else [choice],
            usage=usage,
            metrics=metrics,
        )


def _told(tokens: Sequence[engine.ShownToken]) -> ChoiceLogprobs:
    """The probabilities of a text's tokens."""
    return ChoiceLogprobs(
        content=[
            TokenLogprob(
                **_likely(token).model_dump(),
                top_logprobs=[_likely(each) for each in token.likeliest],
            )
            for token in tokens
        ]
    )


def _likely(token: engine.LikelyToken) -> LikelyToken:
    return LikelyToken(token=token.text, logprob=token.logprob, bytes=list(token.data))
