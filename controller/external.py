"""Servers that speak OpenAI's API and know nothing of this fleet: vLLM, SGLang, llama.cpp, Ollama.

They are polled where a worker beats: each answer to ``GET /v1/models`` renews their lease, so that
all that is true of workers (leases, suspicion, dispatch, failover) is true of them too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr, ValidationError

from controller.polling import PollError, Polls, ask
from controller.protocol.errors import BadRequestError, ConflictError
from controller.protocol.fleet import (
    ExternalReply,
    LeaseReply,
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from controller.protocol.message import Message
from controller.registry import Registry
from controller.upstream import Upstream
from controller.via import not_through
from controller.worker_record import Reach

_log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
POLL_PATIENCE_SECONDS = 1.5  # a server that lists its models no faster than this counts as late
MAX_MODEL_LIST_BYTES = 4 * 1024 * 1024
CAPACITY = 64  # such servers batch; they do not say how many requests they take at once


class _Model(Message):
    id: str
    metadata: Any = None  # ours; others have what they like there

    @property
    def way(self) -> tuple[str, ...]:
        """The controllers that a request passes from that server on; empty where it is none."""
        try:
            return _Metadata.model_validate(self.metadata).via
        except ValidationError:
            return ()


class _Metadata(Message):
    """What is read of our own extension of an entry."""

    via: tuple[str, ...] = ()


class _Models(Message):
    """What is read of a server's ``GET /v1/models``."""

    data: list[_Model] | None  # Ollama's, where there are none


class ExternalServers:
    """The servers that are polled for as long as the application runs.

    Args:
        registry: where what they answer is entered.
        upstream: how they are reached.
        addresses: those to begin with; they may come up later.
    """

    def __init__(self, registry: Registry, upstream: Upstream, addresses: Iterable[str]) -> None:
        self._registry = registry
        self._upstream = upstream
        self._addresses = tuple(addresses)
        self._polls = Polls()

    async def __aenter__(self) -> Self:
        for address in self._addresses:
            self._start(_bare(address), None)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._polls.end()

    async def add(self, address: str, api_key: SecretStr | None) -> ExternalReply:
        """Adds a server that answers now.

        Raises:
            BadRequestError: it does not; nothing was added.
        """
        address = _bare(address)
        try:
            models = await self._poll(address, api_key, self._registry.register)
        except PollError as exc:
            raise BadRequestError(
                f"{address} cannot be added: {exc}; expected an OpenAI-compatible server that "
                f"answers GET {address}/v1/models",
                param="address",
            ) from exc
        self._start(address, api_key)
        return ExternalReply(worker_id=_worker_id(address), models=models)

    def remove(self, worker_id: str) -> None:
        """Polls a server no more, if it is one of these."""
        self._polls.stop(worker_id)

    def _start(self, address: str, api_key: SecretStr | None) -> None:
        self._polls.start(_worker_id(address), self._poll_on(address, api_key))

    async def _poll_on(self, address: str, api_key: SecretStr | None) -> None:
        reason: str | None = None
        while True:
            try:
                await self._poll(address, api_key, self._registry.heartbeat)
                reason = None
            except PollError as exc:
                if str(exc) != reason:  # said once, not every two seconds
                    reason = str(exc)
                    _log.warning("external server %s: %s", address, reason)
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(
        self, address: str, api_key: SecretStr | None, enter: Callable[..., LeaseReply]
    ) -> list[str]:
        """Asks for the models and enters them in the registry; their names.

        Raises:
            PollError: it did not answer, or with something else.
        """
        authorization = None if api_key is None else f"Bearer {api_key.get_secret_value()}"
        headers = {} if authorization is None else {"authorization": authorization}
        body = await ask(
            self._upstream,
            "GET",
            f"{address}/v1/models",
            headers=headers,
            patience_seconds=POLL_PATIENCE_SECONDS,
            max_bytes=MAX_MODEL_LIST_BYTES,
        )
        try:
            models = [model for model in _Models.model_validate_json(body).data or () if model.id]
        except ValidationError as exc:
            raise PollError("GET /v1/models was answered with something else than models") from exc
        ways = not_through(self._registry.name, {model.id: model.way for model in models})
        reach = Reach(authorization=authorization, takes_any_number=True, ways=ways)
        message = RegisterRequest(
            worker_id=_worker_id(address),
            address=address,
            heartbeat_seconds=POLL_SECONDS,
            version="external",
            status=WorkerStatus(
                state=WorkerState.READY,
                models=[ModelCard(name=name, format="openai") for name in ways],
                load=WorkerLoad(capacity=CAPACITY),
            ),
        )
        try:
            enter(message, reach=reach)
        except ConflictError as exc:  # a worker of ours has its address now
            raise PollError(str(exc)) from exc
        return list(ways)


def _bare(address: str) -> str:
    """An address as people write it, with or without ``/v1``, as it stands before ``/v1``."""
    return address.rstrip("/").removesuffix("/v1").rstrip("/")


def _worker_id(address: str) -> str:
    """The same for the same address, so that a restarted controller calls it the same."""
    return "external-" + hashlib.sha256(address.encode()).hexdigest()[:12]
