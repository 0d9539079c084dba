"""LLaVA's and FastChat's controller routes, over this controller's own registry.

All are POST, as theirs are. None of them waits for a worker but the registration of one that says
nothing of itself, and the stream.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from controller.dispatch import DispatchPolicy
from controller.legacy.workers import LegacyWorkers
from controller.protocol.errors import BadRequestError, ErrorBody, ParagoneError
from controller.protocol.legacy import (
    LegacyHeartbeat,
    LegacyHeartbeatReply,
    LegacyRegistration,
    LegacyStatus,
    ModelNames,
    ModelQuestion,
    WorkerAddress,
)
from controller.protocol.message import Message
from controller.registry import Registry
from controller.routing import RoutingHints
from controller.worker_record import Wire

MessageT = TypeVar("MessageT", bound=Message)

MAX_BODY_BYTES = 1024 * 1024
_BODY = {"content": {"application/json": {"schema": {"type": "object"}}}}


def legacy_router(
    registry: Registry,
    workers: LegacyWorkers,
    policy: DispatchPolicy,
    rng: random.Random,
    *,
    check_address: Callable[[str, bytes | None], None],
) -> APIRouter:
    """The routes.

    Args:
        registry: the workers.
        workers: those of them that speak this wire alone.
        policy: who of a model's workers is named to a client.
        rng: the policy's chance.
        check_address: raises PermissionDeniedError where a worker of this address may not join;
            its second argument is the caller's Authorization header.
    """
    router = APIRouter(tags=["legacy"])

    def wanted(names: list[str], *, sees: bool) -> list[str]:
        """The names whose model is said to see, or not to; one that says nothing may do both."""
        cards = {entry.id: entry.metadata.card for entry in registry.models().data}
        return [
            name
            for name in names
            if cards[name].format in ("legacy", "openai")
            or (cards[name].image_tokens is not None) is sees
        ]

    def names() -> list[str]:
        return [entry.id for entry in registry.models().data]

    @router.post(
        "/register_worker",
        response_model=None,
        responses={400: {"model": ErrorBody}, 403: {"model": ErrorBody}},
        openapi_extra={"requestBody": _BODY},
    )
    async def register_worker(request: Request) -> JSONResponse:
        """A legacy worker joins, or a controller with its workers."""
        if "json" not in request.headers.get("content-type", "").lower():
            # A page in a browser may post other types to any address without asking.
            raise BadRequestError("The request must have the header Content-Type: application/json")
        message = await _read(request, LegacyRegistration)
        check_address(message.worker_name, request.headers.get("authorization", "").encode())
        await workers.register(message)
        return JSONResponse(None)

    @router.post("/receive_heart_beat", openapi_extra={"requestBody": _BODY})
    async def receive_heart_beat(request: Request) -> LegacyHeartbeatReply:
        """A legacy worker says that it lives."""
        message = await _read(request, LegacyHeartbeat)
        known = workers.heartbeat(message.worker_name, message.queue_length)
        return LegacyHeartbeatReply(exist=known)

    @router.post("/refresh_all_workers", response_model=None)
    async def refresh_all_workers() -> JSONResponse:
        """Asks the legacy workers anew. Nobody is forgotten for it, and nobody waited for."""
        workers.refresh()
        return JSONResponse(None)

    @router.post("/list_models")
    async def list_models() -> ModelNames:
        """The models that can answer now."""
        return ModelNames(models=names())

    @router.post("/list_multimodal_models")
    async def list_multimodal_models() -> ModelNames:
        """Those of them that see."""
        return ModelNames(models=wanted(names(), sees=True))

    @router.post("/list_language_models")
    async def list_language_models() -> ModelNames:
        """Those of them that do not."""
        return ModelNames(models=wanted(names(), sees=False))

    @router.post("/get_worker_address", openapi_extra={"requestBody": _BODY})
    async def get_worker_address(request: Request) -> WorkerAddress:
        """Where to ask for a model; empty if nobody serves it."""
        question = await _read(request, ModelQuestion)
        try:
            live = registry.rotation(question.model)
        except ParagoneError:
            return WorkerAddress(address="")
        speaking = [
            record
            for record in live
            if record.reach.wire is Wire.LEGACY or record.reach.speaks_legacy_too
        ]
        if not speaking:
            return WorkerAddress(address="")
        record = policy(speaking, RoutingHints(question.model), rng)
        record.foreign += 1  # the request that comes of this, until the worker tells of it itself
        return WorkerAddress(address=record.address)

    @router.post("/worker_get_status")
    async def worker_get_status() -> LegacyStatus:
        """All workers as one, for a controller above this one."""
        listed = registry.models().data
        live = {
            record.worker_id: record for entry in listed for record in registry.rotation(entry.id)
        }
        return LegacyStatus(
            model_names=[entry.id for entry in listed],
            via={entry.id: entry.metadata.via or () for entry in listed},
            speed=len(live),
            queue_length=sum(record.queue_length for record in live.values()),
        )

    @router.get("/test_connection")
    async def test_connection() -> str:
        """FastChat's word for being alive."""
        return "success"

    return router


async def _read(request: Request, kind: type[MessageT]) -> MessageT:
    """A small body, whatever type it is said to have.

    Raises:
        BadRequestError: it is not what was expected; the field is named.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise BadRequestError(f"The body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequestError(f"{where or 'body'}: {first['msg']}", param=where or None) from exc
