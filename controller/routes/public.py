"""OpenAI's API, but for the relayed routes: which models there are, and what there is not."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from controller.protocol.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from controller.protocol.errors import ErrorBody, NotFoundError
from controller.protocol.fleet import ModelEntry, ModelList
from controller.registry import Registry

CHAT_COMPLETIONS = "/v1/chat/completions"


def public_router(registry: Registry) -> APIRouter:
    """The routes of the public API that the controller answers itself."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.get("/models", response_model_exclude_none=True)
    async def list_models() -> ModelList:
        """The models that can answer now."""
        return registry.models()

    # A name may hold slashes, as those of the Hugging Face hub do.
    @router.get(
        "/models/{name:path}",
        response_model_exclude_none=True,
        responses={404: {"model": ErrorBody}, 503: {"model": ErrorBody}},
    )
    async def show_model(name: str) -> ModelEntry:
        """One model that can answer now."""
        return registry.model(name)

    @router.post("/embeddings", responses={404: {"model": ErrorBody}}, status_code=404)
    async def embeddings() -> None:
        """Not offered: the models here write answers, they make no embeddings."""
        raise NotFoundError(
            "This server has no embedding models; it serves POST /v1/chat/completions"
        )

    return router


def describe_relayed_routes(schema: dict[str, Any]) -> None:
    """Adds to an OpenAPI document the routes that do not go through the framework."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})

    def reference(model: type[Any]) -> dict[str, str]:
        template = "#/components/schemas/{model}"
        definition = model.model_json_schema(ref_template=template)
        components.update(definition.pop("$defs", {}))
        components[model.__name__] = definition
        return {"$ref": template.format(model=model.__name__)}

    def failure(description: str) -> dict[str, Any]:
        return {
            "description": description,
            "content": {"application/json": {"schema": reference(ErrorBody)}},
        }

    schema["paths"][CHAT_COMPLETIONS] = {
        "post": {
            "tags": ["OpenAI"],
            "summary": "Chat completion",
            "description": "Answered by a worker of the model; with `stream` as server-sent "
            "events, each a ChatCompletionChunk, ended by `[DONE]`.",
            "operationId": "chat_completions",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference(ChatCompletionRequest)}},
            },
            "responses": {
                "200": {
                    "description": "The answer",
                    "content": {
                        "application/json": {"schema": reference(ChatCompletion)},
                        "text/event-stream": {"schema": reference(ChatCompletionChunk)},
                    },
                },
                "400": failure("The request cannot be understood or carried out"),
                "404": failure("There is no such model"),
                "413": failure("The body is too large"),
                "429": failure("All workers of the model are full"),
                "502": failure("The worker went away before its answer was complete"),
                "503": failure("The model has no live worker, or is still loading"),
            },
        }
    }
