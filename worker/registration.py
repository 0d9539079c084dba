"""Keeps this worker's lease with each of its controllers.

Each controller has a loop of its own, so that one that is away delays nobody, and nothing that a
request does ever waits for a controller. A controller that does not know our fleet's API is taken
for LLaVA's or FastChat's, and told what those understand.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
from pydantic import ValidationError

from controller.protocol.fleet import (
    DrainRequest,
    LeaseReply,
    RegisterRequest,
    WorkerState,
    WorkerStatus,
)
from controller.protocol.legacy import (
    LegacyHeartbeat,
    LegacyHeartbeatReply,
    LegacyRegistration,
    LegacyStatus,
)

_log = logging.getLogger(__name__)

# The first retries are quick, as a fleet's processes start together; later ones wait for a whole
# heartbeat and never longer, so that a restarted controller knows its fleet within one.
FIRST_RETRY_SECONDS = 0.1
# Beats that meet a restarted controller at the same moment would be a burst.
JITTER = 0.1
# What a server says of a path that it does not know, or knows for GET alone.
_NO_SUCH_PATH = frozenset({404, 405})
# A controller that does not answer in this time is taken for absent.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Membership:
    """A controller, and the address by which it reaches this worker."""

    controller: str
    worker_address: str


@dataclass(slots=True, eq=False)
class _Lease:
    """What is known of one controller."""

    membership: Membership
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)  # it has the newest state
    is_registered: bool = False
    is_legacy: bool = False  # it knows the old programs' wire alone
    failures: int = 0  # in a row


def pause_seconds(heartbeat_seconds: float, failures: int) -> float:
    """The longest pause before the next beat, after so many failures in a row."""
    if not failures:
        return heartbeat_seconds
    return min(heartbeat_seconds, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 30))


class Registration:
    """Registers, beats, and leaves.

    Args:
        memberships: one for each controller; none is a worker on its own.
        worker_id: of this process.
        version: of this process.
        heartbeat_seconds: how often each controller is told the whole status.
        status: the status as of now.
        http: the client; without a proxy from the environment, as controllers are neighbours.
        token: what controllers ask workers for, where they do.
    """

    def __init__(
        self,
        memberships: Sequence[Membership],
        *,
        worker_id: str,
        version: str,
        heartbeat_seconds: float,
        status: Callable[[], WorkerStatus],
        http: httpx.AsyncClient,
        token: str | None = None,
    ) -> None:
        self._leases = [_Lease(membership) for membership in memberships]
        self._worker_id = worker_id
        self._version = version
        self._heartbeat_seconds = heartbeat_seconds
        self._status = status
        self._http = http
        self._headers = {"content-type": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"

    async def run(self) -> None:
        """Keeps all leases until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for lease in self._leases:
                tasks.create_task(self._keep(lease))

    def announce(self) -> None:
        """Tells all controllers the status now, not at the next beat."""
        for lease in self._leases:
            lease.told.clear()
            lease.wake.set()

    async def wait_until_told(self, timeout_seconds: float) -> None:
        """Returns once each controller has heard of the last announcement, or in vain."""
        waits = [lease.told.wait() for lease in self._leases]
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.gather(*waits)
        except TimeoutError:
            absent = [x.membership.controller for x in self._leases if not x.told.is_set()]
            _log.warning("gave up telling %s the last state", ", ".join(absent))

    async def drain(self) -> None:
        """Asks each controller to route nothing more here. Waits for none of them for long."""
        await asyncio.gather(*(self._drain(lease) for lease in self._leases))

    async def _keep(self, lease: _Lease) -> None:
        while True:
            lease.wake.clear()
            try:
                await self._beat(lease)
            except (httpx.HTTPError, ValidationError) as exc:
                self._note_failure(lease, exc)
            except Exception:  # noqa: BLE001 - a worker that stops beating is lost to its fleet
                lease.failures += 1
                _log.exception("a heartbeat to %s failed", lease.membership.controller)
            try:
                async with asyncio.timeout(self._pause_seconds(lease)):
                    await lease.wake.wait()
            except TimeoutError:
                pass

    async def _beat(self, lease: _Lease) -> None:
        if lease.is_legacy:
            await self._beat_legacy(lease)
            return
        controller = lease.membership.controller
        message = RegisterRequest(
            worker_id=self._worker_id,
            address=lease.membership.worker_address,
            heartbeat_seconds=self._heartbeat_seconds,
            version=self._version,
            status=self._status(),
        )
        is_heartbeat = lease.is_registered
        try:
            reply = await self._post(
                controller + ("/fleet/heartbeat" if is_heartbeat else "/fleet/register"),
                message.model_dump_json(exclude_none=True),
            )
        except httpx.HTTPStatusError as exc:
            if exc.response.status_code not in _NO_SUCH_PATH:
                raise
            lease.is_registered = False
            await self._beat_legacy(lease)
            lease.is_legacy = True
            return
        known = LeaseReply.model_validate_json(reply.content).known
        if not is_heartbeat:
            _log.info("registered with %s as %s", controller, lease.membership.worker_address)
        elif lease.failures or not known:
            _log.info("%s is back and knows this worker", controller)
        lease.is_registered, lease.failures = True, 0
        self._note_told(lease)

    async def _beat_legacy(self, lease: _Lease) -> None:
        """Registers or beats as LLaVA's and FastChat's workers do, and as often as ours do.

        Their controllers know no state but being there: a worker that is not ready says nothing,
        and its ``/worker_get_status`` says no to whoever asks. They count each request that they
        send until the next beat, so that beating rarely would look like being busy.
        """
        controller, address = lease.membership.controller, lease.membership.worker_address
        status = self._status()
        if status.state is not WorkerState.READY:
            lease.is_registered, lease.failures = False, 0
            self._note_told(lease)
            return
        queue_length = status.load.running + status.load.waiting
        try:
            if lease.is_registered:
                beat = LegacyHeartbeat(worker_name=address, queue_length=queue_length)
                reply = await self._post(controller + "/receive_heart_beat", beat.model_dump_json())
                lease.is_registered = LegacyHeartbeatReply.model_validate_json(reply.content).exist
            if not lease.is_registered:
                registration = LegacyRegistration(
                    worker_name=address,
                    check_heart_beat=True,
                    worker_status=LegacyStatus(
                        model_names=[card.name for card in status.models],
                        queue_length=queue_length,
                    ),
                    multimodal=any(card.image_tokens is not None for card in status.models),
                )
                await self._post(controller + "/register_worker", registration.model_dump_json())
                _log.info("registered with %s, a legacy controller, as %s", controller, address)
        except httpx.HTTPStatusError:
            # Something else may answer there by now.
            lease.is_legacy = lease.is_registered = False
            raise
        lease.is_registered, lease.failures = True, 0
        self._note_told(lease)

    def _note_told(self, lease: _Lease) -> None:
        if not lease.wake.is_set():  # else something has changed since the status was taken
            lease.told.set()

    async def _post(self, url: str, body: str) -> httpx.Response:
        reply = await self._http.post(
            url,
            content=body,
            headers=self._headers,
            timeout=PATIENCE_SECONDS,
        )
        return reply.raise_for_status()

    def _note_failure(self, lease: _Lease, exc: Exception) -> None:
        lease.failures += 1
        controller = lease.membership.controller
        if lease.failures > 1:  # one line when it goes, one when it is back
            return
        if isinstance(exc, httpx.HTTPStatusError):
            reason = f"answered {exc.response.status_code}: {exc.response.text[:300]}"
        elif isinstance(exc, ValidationError):
            reason = (
                f"gave an answer that is no lease; is it a controller? {exc.errors()[0]['msg']}"
            )
        else:
            reason = f"does not answer: {str(exc) or type(exc).__name__}"
        _log.warning(
            "the controller at %s %s; this worker goes on and keeps trying", controller, reason
        )

    def _pause_seconds(self, lease: _Lease) -> float:
        pause = pause_seconds(self._heartbeat_seconds, lease.failures)
        return pause * random.uniform(1 - JITTER, 1)  # noqa: S311 - spreads beats, hides nothing

    async def _drain(self, lease: _Lease) -> None:
        if lease.is_legacy:  # its controller has no word for it; it hears no more of this worker
            return
        body = DrainRequest(worker_id=self._worker_id).model_dump_json()
        try:
            await self._post(lease.membership.controller + "/fleet/drain", body)
        except httpx.HTTPError as exc:
            _log.warning("could not tell %s of the shutdown: %s", lease.membership.controller, exc)
