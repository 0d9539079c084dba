"""LLaVA's and FastChat's workers in this fleet, and their controllers as workers of it.

They register by themselves and beat every 15 or 45 s, which says too little too late: so they are
asked for their status as well, and each answer renews their lease. A beat renews it too, as a
worker registers before it listens.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from controller.polling import PollError, Polls, ask
from controller.protocol.errors import BadRequestError, ConflictError, UnavailableError
from controller.protocol.fleet import (
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from controller.protocol.legacy import LegacyRegistration, LegacyStatus, ModelQuestion
from controller.protocol.legacy_templates import ConversationReply, LegacyTemplate
from controller.registry import Registry
from controller.upstream import Upstream
from controller.via import not_through
from controller.worker_record import Reach, Wire

_log = logging.getLogger(__name__)

POLL_SECONDS = 2.5
# LLaVA's workers answer nobody while they beat to a controller that is away: up to 5 s.
POLL_PATIENCE_SECONDS = 5.0
LEASE_INTERVAL_SECONDS = 5.0  # late after two of them, gone after three
BEAT_SECONDS = 45.0  # FastChat's; LLaVA's is 15. A worker that loads renews by beats alone
CAPACITY = 5  # LLaVA's --limit-model-concurrency; they do not tell theirs
MAX_STATUS_BYTES = 1024 * 1024
MAX_WORKERS = 256
MIN_REFRESH_SECONDS = 1.0
FORGET_AFTER_POLLS = 60  # failed in a row: a worker that lives registers again


@dataclass(slots=True, eq=False)
class _Member:
    """One legacy worker."""

    address: str
    beats: bool
    status: LegacyStatus | None = None
    template: LegacyTemplate | None = None
    has_answered: bool = False

    @property
    def worker_id(self) -> str:
        """The same for the same address, so that a restarted controller calls it the same."""
        return "legacy-" + hashlib.sha256(self.address.encode()).hexdigest()[:12]


class LegacyWorkers:
    """The legacy workers that are asked for their status while the application runs.

    Args:
        registry: where they are entered.
        upstream: how they are reached.
    """

    def __init__(self, registry: Registry, upstream: Upstream) -> None:
        self._registry = registry
        self._upstream = upstream
        self._members: dict[str, _Member] = {}
        self._polls = Polls()
        self._refreshed_at = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._polls.end()

    async def register(self, message: LegacyRegistration) -> None:
        """Enters a worker; one that says nothing of itself is asked.

        Raises:
            BadRequestError: it says nothing of itself and does not answer either.
            UnavailableError: there are too many.
        """
        address = message.worker_name.rstrip("/")
        member = self._members.get(address)
        if member is None:
            if len(self._members) >= MAX_WORKERS:
                raise UnavailableError(
                    f"{MAX_WORKERS} legacy workers are on the list, the most that may be",
                    retry_after_seconds=BEAT_SECONDS,
                )
            member = _Member(address, message.check_heart_beat)
        member.beats = message.check_heart_beat
        member.status = message.worker_status or member.status
        try:
            if message.worker_status is None:
                await self._ask(member)
            else:
                self._enter(member, is_new=True)
        except PollError as exc:
            raise BadRequestError(
                f"{address} cannot be added: {exc}; expected a worker or a controller that answers "
                f"POST {address}/worker_get_status",
                param="worker_name",
            ) from exc
        if address not in self._members:
            _log.info("legacy worker joined at %s", address)
            self._members[address] = member
            self._polls.start(address, self._poll_on(member))

    def heartbeat(self, address: str, queue_length: int) -> bool:
        """Renews a worker's lease; whether it is known. Nobody is asked for that."""
        member = self._members.get(address.rstrip("/"))
        if member is None or member.status is None:
            return False
        member.status = member.status.model_copy(update={"queue_length": queue_length})
        try:
            self._enter(member, is_new=False)
        except PollError:
            return False
        return True

    def refresh(self) -> None:
        """Asks all of them now, without waiting for any; not more than once a second."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at < MIN_REFRESH_SECONDS:
            return
        self._refreshed_at = now
        for address, member in self._members.items():
            self._polls.start(address, self._poll_on(member))

    async def _poll_on(self, member: _Member) -> None:
        failures = 0
        while failures < FORGET_AFTER_POLLS or not member.beats:
            try:
                await self._ask(member)
                failures = 0
            except PollError as exc:
                failures += 1
                if failures == 1:
                    _log.warning("legacy worker %s: %s", member.address, exc)
            await asyncio.sleep(POLL_SECONDS)
        del self._members[member.address]
        self._polls.stop(member.address)

    async def _ask(self, member: _Member) -> None:
        """Asks a worker for its status, and once for its template.

        Raises:
            PollError: it does not answer so.
        """
        body = await self._post(member.address + "/worker_get_status", b"")
        try:
            member.status = LegacyStatus.model_validate_json(body)
        except ValidationError as exc:
            raise PollError("POST /worker_get_status was answered with no status") from exc
        if not member.has_answered:
            member.has_answered = True
            member.template = await self._template(member)
        self._enter(member, is_new=False)

    async def _template(self, member: _Member) -> LegacyTemplate | None:
        """FastChat's workers give theirs away; LLaVA's do not know the question."""
        if member.status is None or not member.status.model_names:
            return None
        question = ModelQuestion(model=member.status.model_names[0]).model_dump_json().encode()
        try:
            body = await self._post(member.address + "/worker_get_conv_template", question)
            return ConversationReply.model_validate_json(body).conv.template()
        except (PollError, ValueError) as exc:  # a ValidationError is a ValueError
            _log.debug("%s gives no template away: %s", member.address, exc)
            return None

    async def _post(self, url: str, body: bytes) -> bytes:
        return await ask(
            self._upstream,
            "POST",
            url,
            headers={"content-type": "application/json"} if body else {},
            body=body,
            patience_seconds=POLL_PATIENCE_SECONDS,
            max_bytes=MAX_STATUS_BYTES,
        )

    def _enter(self, member: _Member, *, is_new: bool) -> None:
        status = member.status
        if status is None:
            return
        told = status.via or {}
        names = [name for name in status.model_names if name]
        ways = not_through(self._registry.name, {name: told.get(name, ()) for name in names})
        interval = LEASE_INTERVAL_SECONDS if member.has_answered else BEAT_SECONDS
        message = RegisterRequest(
            worker_id=member.worker_id,
            address=member.address,
            heartbeat_seconds=interval,
            version="legacy",
            status=WorkerStatus(
                state=WorkerState.READY,
                models=[ModelCard(name=name, format="legacy") for name in ways],
                load=WorkerLoad(running=max(0, status.queue_length), capacity=CAPACITY),
            ),
        )
        reach = Reach(wire=Wire.LEGACY, template=member.template, ways=ways)
        enter = self._registry.register if is_new else self._registry.heartbeat
        try:
            enter(message, reach=reach)
        except ConflictError as exc:  # a worker of ours has its address now
            raise PollError(str(exc)) from exc
