"""OpenAI's API, but for the relayed routes: which models there are, and what there is not."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response

from controller.protocol.errors import ErrorBody, NotFoundError
from controller.protocol.fleet import ModelEntry, ModelList
from controller.registry import Registry


def public_router(registry: Registry) -> APIRouter:
    """The routes of the public API that the controller answers itself."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    listed: ModelList | None = None
    rendered = b""

    @router.get("/models", response_model=ModelList)
    async def list_models() -> Response:
        """The models that can answer now."""
        nonlocal listed, rendered
        current = registry.models()
        if current is not listed:  # pages ask every second, a thousand models take milliseconds
            listed, rendered = current, current.model_dump_json(exclude_none=True).encode()
        return Response(rendered, media_type="application/json")

    # A name may hold slashes, as those of the Hugging Face hub do.
    @router.get(
        "/models/{name:path}",
        response_model_exclude_none=True,
        responses={404: {"model": ErrorBody}, 503: {"model": ErrorBody}},
    )
    async def show_model(name: str) -> ModelEntry:
        """One model that can answer now."""
        if not name:  # a slash too many behind the list's own path
            raise HTTPException(404)
        return registry.model(name)

    @router.post("/embeddings", responses={404: {"model": ErrorBody}}, status_code=404)
    async def embeddings() -> None:
        """Not offered: the models here write answers, they make no embeddings."""
        raise NotFoundError(
            "This server has no embedding models; it serves POST /v1/chat/completions"
        )

    return router
