"""The fleet API: workers register, beat and leave; operators see them."""

from __future__ import annotations

import logging

from fastapi import APIRouter

from controller.external import ExternalServers
from controller.joining import JoinRules
from controller.protocol.errors import ErrorBody, PermissionDeniedError
from controller.protocol.fleet import (
    DrainReply,
    DrainRequest,
    ExternalReply,
    ExternalRequest,
    FleetView,
    LeaseReply,
    RegisterRequest,
)
from controller.registry import Registry

_log = logging.getLogger(__name__)


def fleet_router(
    registry: Registry,
    external: ExternalServers,
    joining: JoinRules,
) -> APIRouter:
    """The routes for workers and operators.

    Args:
        registry: the workers.
        external: the servers that do not register by themselves.
        joining: whose addresses are let in; only callers with the token may have this process
            fetch one.
    """
    router = APIRouter(prefix="/fleet", tags=["fleet"])

    @router.post("/register", responses={403: {"model": ErrorBody}})
    async def register(message: RegisterRequest) -> LeaseReply:
        """Puts a worker on the list; again and again does no harm."""
        joining.check(message.address)
        reply = registry.register(message)
        _log_newcomer(message, reply)
        return reply

    @router.post("/heartbeat", responses={403: {"model": ErrorBody}, 409: {"model": ErrorBody}})
    async def heartbeat(message: RegisterRequest) -> LeaseReply:
        """Renews a worker's lease; a worker that was not on the list is so now."""
        joining.check(message.address)
        reply = registry.heartbeat(message)
        _log_newcomer(message, reply)
        return reply

    @router.post("/drain")
    async def drain(message: DrainRequest) -> DrainReply:
        """Routes nothing more to a worker; it leaves the list when its heartbeats end."""
        external.remove(message.worker_id)
        known = registry.drain(message.worker_id)
        if known:
            _log.info("worker %s is draining", message.worker_id)
        return DrainReply(known=known)

    @router.post("/external", responses={403: {"model": ErrorBody}})
    async def add_external(message: ExternalRequest) -> ExternalReply:
        """Adds an OpenAI-compatible server; `drain` with its id takes it away again."""
        if not joining.has_token:
            raise PermissionDeniedError(
                "An address is fetched only for those who have the fleet's token, and this "
                "controller has none: start it with --fleet-token, or name the server there with "
                "--external"
            )
        return await external.add(message.address, message.api_key)

    @router.get("/workers")
    async def workers() -> FleetView:
        """All workers with their whole state."""
        return registry.view()

    return router


def _log_newcomer(message: RegisterRequest, reply: LeaseReply) -> None:
    if not reply.known:
        _log.info(
            "worker %s joined at %s: %s (%s)",
            message.worker_id,
            message.address,
            ", ".join(card.name for card in message.status.models) or "no models yet",
            message.status.state.value,
        )
