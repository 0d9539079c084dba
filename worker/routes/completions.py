"""``POST /v1/completions``: prompts that are continued as they are, OpenAI's older format."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from controller.chassis.hangup import HangUp
from controller.chassis.openapi import COMPLETIONS
from controller.protocol.chat import Metrics, Usage
from controller.protocol.completions import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from controller.protocol.errors import BadRequestError, UnsupportedError
from controller.protocol.sampling import MAX_CHOICES
from worker.engine.protocol import Finished, GenerationRequest, TextDelta
from worker.engine.tokens import ShownToken
from worker.lifecycle import Lifecycle
from worker.routes.answering import Answering, WholeChoice
from worker.routes.body import CLIENT_CLOSED_REQUEST, BodyLimits, parse_request, read_body
from worker.routes.sampling import sampling_params, timeout_seconds


def completion_routes(
    lifecycle: Lifecycle, answering: Answering, *, body_limits: BodyLimits
) -> APIRouter:
    """The route, over what it needs."""
    router = APIRouter(tags=["openai"])

    @router.post(COMPLETIONS, response_model=None)
    async def create_completion(request: Request) -> Response:
        """Continuations, whole or as server-sent events."""
        arrived = time.monotonic()
        try:
            asked = parse_request(await read_body(request, body_limits), CompletionRequest)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        _require_possible(asked)
        sampling = [
            sampling_params(asked, logprobs=asked.logprobs, choice=choice)
            for choice in range(asked.n)
        ]
        timeout = timeout_seconds(asked, request.headers)
        served = lifecycle.serve(asked.model)
        request_id = request.state.request_id
        generations = [
            GenerationRequest(
                request_id=request_id,
                model=asked.model,
                prompt=prompt,
                sampling=each,
                arrived=arrived,
                timeout_seconds=timeout,
            )
            for prompt in asked.prompts
            for each in sampling
        ]
        async with HangUp(request.receive):
            served.engine.check_room(len(generations))
            return await answering.answer(
                served.engine,
                generations,
                asked,
                CompletionFormat(asked.model, tells_tokens=asked.logprobs is not None),
                request_id,
            )
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    return router


def _require_possible(asked: CompletionRequest) -> None:
    if asked.echo:
        raise UnsupportedError(
            "echo: this server does not repeat prompts, nor tell their probabilities; put the "
            "prompt before the answer yourself",
            param="echo",
        )
    if asked.suffix:
        raise UnsupportedError(
            "suffix: this server continues texts and fills no gaps; leave it out", param="suffix"
        )
    if asked.best_of is not None and asked.best_of != asked.n:
        raise UnsupportedError(
            "best_of: this server does not choose among answers; ask for n of them with logprobs",
            param="best_of",
        )
    if not asked.prompts:
        raise BadRequestError("prompt: it is empty; there is nothing to continue", param="prompt")
    if len(asked.prompts) * asked.n > MAX_CHOICES:
        raise BadRequestError(
            f"prompt: {len(asked.prompts)} prompts with {asked.n} answers each are more than "
            f"{MAX_CHOICES} in one request; send several",
            param="prompt",
        )


class CompletionFormat:
    """Completions; see `worker.routes.answering.Format`.

    Args:
        model: who answers.
        tells_tokens: whether the tokens' probabilities were asked for.
    """

    def __init__(self, model: str, *, tells_tokens: bool) -> None:
        self._model = model
        self._tells_tokens = tells_tokens
        self._id = "cmpl-" + uuid.uuid4().hex
        self._created = int(time.time())

    def piece(self, index: int, delta: TextDelta) -> Completion:
        """An event: more of a choice."""
        told = self._told(delta.tokens)
        return self._completion([CompletionChoice(index=index, text=delta.text, logprobs=told)])

    def end(self, index: int, finished: Finished) -> Completion:
        """An event: the end of a choice."""
        choice = CompletionChoice(
            index=index, text="", finish_reason=finished.reason, stop_reason=finished.stop_reason
        )
        return self._completion([choice], metrics=finished.metrics)

    def total(self, usage: Usage, metrics: Metrics) -> Completion:
        """An event: what all choices came to."""
        return self._completion([], usage=usage, metrics=metrics)

    def whole(self, choices: Sequence[WholeChoice], usage: Usage, metrics: Metrics) -> Completion:
        """The whole answer."""
        return self._completion(
            [
                CompletionChoice(
                    index=index,
                    text=each.text,
                    logprobs=self._told(each.tokens),
                    finish_reason=each.finished.reason,
                    stop_reason=each.finished.stop_reason,
                )
                for index, each in enumerate(choices)
            ],
            usage=usage,
            metrics=metrics,
        )

    def _completion(
        self,
        choices: list[CompletionChoice],
        *,
        usage: Usage | None = None,
        metrics: Metrics | None = None,
    ) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage,
            metrics=metrics,
        )

    def _told(self, tokens: Sequence[ShownToken]) -> CompletionLogprobs | None:
        if not self._tells_tokens:
            return None
        return CompletionLogprobs(
            tokens=[token.text for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                {each.text: each.logprob for each in token.likeliest} for token in tokens
            ],
            text_offset=[token.offset for token in tokens],
        )
