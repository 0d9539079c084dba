"""What LLaVA's and FastChat's controllers and servers ask a worker besides answers."""

from __future__ import annotations

from typing import TypeVar

from fastapi import APIRouter, Request

from controller.protocol.errors import NotFoundError, UnsupportedError
from controller.protocol.fleet import ModelCard
from controller.protocol.legacy import LegacyStatus, ModelQuestion
from controller.protocol.legacy_templates import (
    TEMPLATES,
    ConversationReply,
    FastChatConversation,
)
from controller.protocol.message import Message
from worker.engine.protocol import GenerationRequest
from worker.lifecycle import Lifecycle
from worker.routes.body import BodyLimits, parse_request, read_body

MessageT = TypeVar("MessageT", bound=Message)
_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


class _CountQuestion(Message):
    """``/count_token``."""

    prompt: str
    model: str | None = None


def legacy_fact_routes(lifecycle: Lifecycle, *, body_limits: BodyLimits) -> APIRouter:
    """The routes, over what they need."""
    router = APIRouter(tags=["legacy"])

    async def read(request: Request, kind: type[MessageT]) -> MessageT:
        return parse_request(await read_body(request, body_limits), kind)

    @router.post("/worker_get_status", response_model_exclude_none=True)
    async def get_status() -> LegacyStatus:
        """What a legacy controller asks; an answer other than 200 takes this worker off its list.

        Raises:
            UnavailableError: it is not ready, or not any more.
        """
        status = lifecycle.status()
        lifecycle.serve(status.models[0].name)
        return LegacyStatus(
            model_names=[card.name for card in status.models],
            queue_length=status.load.running + status.load.waiting,
        )

    @router.post("/count_token", openapi_extra=_BODY)
    async def count_token(request: Request) -> dict[str, int]:
        """How many tokens a prompt has."""
        asked = await read(request, _CountQuestion)
        model = asked.model or lifecycle.status().models[0].name
        served = lifecycle.serve(model)
        view = await served.engine.preview(
            GenerationRequest(request_id=request.state.request_id, model=model, prompt=asked.prompt)
        )
        return {"count": view.prompt_tokens, "error_code": 0}

    @router.post("/model_details", openapi_extra=_BODY)
    async def model_details(request: Request) -> dict[str, int]:
        """The model's context."""
        asked = await read(request, ModelQuestion)
        length = lifecycle.serve(asked.model).card.context_length
        if length is None:
            raise UnsupportedError("This model does not say how long its context is")
        return {"context_length": length}

    @router.post("/worker_get_conv_template", openapi_extra=_BODY)
    async def get_conv_template(request: Request) -> ConversationReply:
        """The model's template in FastChat's terms, where those have words for it."""
        asked = await read(request, ModelQuestion)
        name = _template_name(lifecycle.card(asked.model))
        template = TEMPLATES.get(name)
        if template is None:
            raise UnsupportedError(
                f"The chat template of {asked.model!r} ({name or 'its own'}) cannot be told in "
                f"FastChat's terms; ask POST /v1/chat/completions, which applies it",
                param="model",
            )
        return ConversationReply(conv=FastChatConversation.of(name, template))

    @router.post("/worker_get_embeddings", status_code=404)
    async def get_embeddings() -> None:
        """Not offered."""
        raise NotFoundError("This worker writes answers, it makes no embeddings")

    return router


def _template_name(card: ModelCard) -> str:
    if card.facts is None or card.facts.template is None:
        return ""
    return card.facts.template
