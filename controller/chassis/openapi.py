"""The FastAPI application that controller and worker share, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import Lifespan, Receive, Scope, Send

from controller.chassis.http import package_version
from controller.protocol.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from controller.protocol.completions import Completion, CompletionRequest
from controller.protocol.errors import ErrorBody
from controller.protocol.legacy import GENERATE_STREAM
from controller.protocol.preview import Preview, PreviewRequest

CHAT_COMPLETIONS = "/v1/chat/completions"
PREVIEW = "/v1/preview"
COMPLETIONS = "/v1/completions"


class Api(FastAPI):
    """FastAPI, whose OpenAPI document also describes the route that reads its own body.

    It has no ``/docs``: that page would make the browser load its scripts from another host.
    """

    def __init__(self, title: str, lifespan: Lifespan[FastAPI]) -> None:
        super().__init__(
            title=title,
            version=package_version(),
            lifespan=lifespan,
            docs_url=None,
            redoc_url=None,
            # A redirect would name whatever host the request says it was sent to.
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers; to ``HEAD`` as to ``GET``, of which the server sends the head alone."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document at ``/openapi.json``."""
        schema = super().openapi()
        _describe_answers(
            schema,
            CHAT_COMPLETIONS,
            "Chat completion",
            ChatCompletionRequest,
            (ChatCompletion, ChatCompletionChunk),
        )
        _describe_answers(
            schema, COMPLETIONS, "Text completion", CompletionRequest, (Completion, Completion)
        )
        _describe_preview(schema)
        schema["paths"].setdefault(GENERATE_STREAM, _LEGACY_STREAM)
        return schema


_LEGACY_STREAM: dict[str, Any] = {
    "post": {
        "tags": ["legacy"],
        "summary": "Legacy stream",
        "description": "LLaVA's and FastChat's: a prompt in, frames of cumulative text out.",
        "operationId": "worker_generate_stream",
        "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "JSON objects, each with a NUL after it"}},
    }
}


def _references(
    schema: dict[str, Any],
) -> tuple[Callable[[type[Any]], dict[str, str]], Callable[[str], dict[str, Any]]]:
    """Two functions: one refers to a message, which it adds to the document; one to an error."""
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

    return reference, failure


def _describe_preview(schema: dict[str, Any]) -> None:
    reference, failure = _references(schema)
    schema["paths"][PREVIEW] = {
        "post": {
            "tags": ["images"],
            "summary": "What the model would see",
            "description": "The prompt of a conversation, and its images as the model's encoder "
            "gets them, as PNGs. Nothing is generated.",
            "operationId": "preview",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference(PreviewRequest)}},
            },
            "responses": {
                "200": {
                    "description": "The prompt and the pictures",
                    "content": {"application/json": {"schema": reference(Preview)}},
                },
                "400": failure("An image or a field is wrong, or the model has no such mode"),
                "404": failure("There is no such model"),
                "413": failure("The body is too large"),
                "429": failure("Too many previews are being made; see Retry-After"),
                "503": failure("The model is loading, or nobody serves it now; see Retry-After"),
            },
        }
    }


def _describe_answers(
    schema: dict[str, Any],
    path: str,
    summary: str,
    request: type[Any],
    answers: tuple[type[Any], type[Any]],
) -> None:
    """Adds a route to an OpenAPI document: it reads its own body, unseen by the framework."""
    whole, event = answers
    reference, failure = _references(schema)
    schema["paths"][path] = {
        "post": {
            "tags": ["OpenAI"],
            "summary": summary,
            "description": "With `stream` the answer comes as server-sent events, each a "
            f"{event.__name__}, ended by `[DONE]`.",
            "operationId": path.removeprefix("/v1/").replace("/", "_"),
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference(request)}},
            },
            "responses": {
                "200": {
                    "description": "The answer",
                    "content": {
                        "application/json": {"schema": reference(whole)},
                        "text/event-stream": {"schema": reference(event)},
                    },
                },
                "400": failure("The request cannot be understood or carried out"),
                "404": failure("There is no such model"),
                "413": failure("The body is too large"),
                "429": failure("The queue is full; Retry-After says when to come back"),
                "502": failure(
                    "The worker went away before its answer was complete (controller only)"
                ),
                "504": failure("The answer was not complete in its time"),
                "503": failure("The model is loading, or nobody serves it now; see Retry-After"),
            },
        }
    }
