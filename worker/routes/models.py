"""``GET /v1/models``: what this worker serves."""

from __future__ import annotations

import time

from fastapi import APIRouter

from controller.protocol.fleet import ModelCard, ModelEntry, ModelList, ModelMetadata, WorkerState
from worker.lifecycle import Lifecycle


def model_routes(lifecycle: Lifecycle) -> APIRouter:
    """The routes, over what they need."""
    router = APIRouter(tags=["openai"])
    created = int(time.time())

    def entry(card: ModelCard) -> ModelEntry:
        metadata = ModelMetadata(state=lifecycle.state, worker_count=1, card=card)
        return ModelEntry(id=card.name, created=created, metadata=metadata)

    @router.get("/v1/models", response_model_exclude_none=True)
    async def list_models() -> ModelList:
        """The models that can answer now."""
        if lifecycle.state is not WorkerState.READY:
            return ModelList(data=[])
        return ModelList(data=[entry(card) for card in lifecycle.status().models])

    @router.get("/v1/models/{model:path}", response_model_exclude_none=True)
    async def show_model(model: str) -> ModelEntry:
        """One model, in whatever state it is."""
        return entry(lifecycle.card(model))

    return router
