"""Which workers live: leases, drains, suspicions, and the models that follow from them.

Pure: it does no I/O and reads only the clocks that it was given, so every rule can be tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from controller.absence import not_found, unavailable, unheard_of
from controller.breaker import Breaker
from controller.protocol.errors import (
    ConflictError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelUnheardOfError,
    NoLiveWorkerError,
)
from controller.protocol.fleet import (
    FleetView,
    LeaseReply,
    ModelEntry,
    ModelList,
    ModelMetadata,
    RegisterRequest,
    WorkerState,
    WorkerView,
)
from controller.via import shortest
from controller.worker_record import OUR_OWN, Lease, Reach, WorkerRecord

MAX_REMEMBERED_MODELS = 4096  # names kept to tell "gone" from "never heard of"


class Registry:
    """The workers of one controller, by id, by address and by model.

    Args:
        clock: monotonic seconds.
        wall_clock: Unix seconds, for the ``created`` field of model entries.
        name: this controller's in `Via`; see `controller.via`.
        settling_seconds: how long after the start a name that nobody has told of may still be that
            of a worker which is coming back.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        name: str = "",
        settling_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self._clock = clock
        self._began_at = clock()
        self._settling_seconds = settling_seconds
        self._wall_clock = wall_clock
        self._workers: dict[str, WorkerRecord] = {}
        self._by_address: dict[str, WorkerRecord] = {}
        self._by_model: dict[str, dict[str, WorkerRecord]] = {}
        self._first_seen: dict[str, int] = {}  # model name -> Unix seconds
        self._replaced_by: dict[str, str] = {}  # worker id -> id that took over its address
        self._listed: ModelList | None = None  # the model list, while it is true
        self._listed_until = 0.0
        self._listeners: list[Callable[[WorkerRecord], None]] = []

    def on_news(self, listener: Callable[[WorkerRecord], None]) -> None:
        """Calls ``listener`` whenever a worker was heard of, is suspected, drained or gone."""
        self._listeners.append(listener)

    def register(self, message: RegisterRequest, *, reach: Reach = OUR_OWN) -> LeaseReply:
        """Puts a worker on the list, or renews it; arguments as of `heartbeat`.

        A new worker at a known address replaces the old one at once: so a restarted process looks.
        One that was drained, or is suspected, and registers again is back: it says so itself.
        """
        self._replaced_by.pop(message.worker_id, None)
        reply = self._take(message, reach)
        record = self._workers[message.worker_id]
        record.is_drained, record.breaker = False, Breaker()
        self._changed(record)
        return reply

    def heartbeat(self, message: RegisterRequest, *, reach: Reach = OUR_OWN) -> LeaseReply:
        """Renews a lease; an unknown worker is registered by the same call.

        Args:
            message: what the worker says, or what is said for it.
            reach: how requests get to it.

        Raises:
            ConflictError: another worker has registered at this address since.
        """
        successor = self._workers.get(self._replaced_by.get(message.worker_id, ""))
        if successor is not None and not successor.lease.is_over(self._clock()):
            raise ConflictError(
                f"{message.address} now belongs to worker {successor.worker_id}, which registered "
                f"there later; stop one of the two, or give each its own --worker-address"
            )
        self._replaced_by.pop(message.worker_id, None)
        return self._take(message, reach)

    def drain(self, worker_id: str) -> bool:
        """Routes nothing more to a worker; whether it was on the list."""
        record = self._workers.get(worker_id)
        if record is not None:
            record.is_drained = True
            self._changed(record)
        return record is not None

    def suspect(self, record: WorkerRecord, reason: str) -> None:
        """A request failed by the worker's fault: it is avoided until a probe has answered."""
        record.breaker.fail(reason, self._clock())
        self._changed(record)

    def doubt(self, record: WorkerRecord, reason: str) -> bool:
        """A request was answered with an error of the worker's own; whether it is suspected now."""
        is_suspect = record.breaker.stumble(reason, self._clock())
        if is_suspect:
            self._changed(record)
        return is_suspect

    def forgive(self, seconds: float) -> None:
        """This process stood still for so long: nobody is late for what it could not hear."""
        for record in self._workers.values():
            record.lease = Lease(record.lease.renewed_at + seconds, record.lease.seconds)
        self._listed = None

    def expire(self) -> list[WorkerRecord]:
        """Forgets the workers whose lease is over, and returns them.

        One that still has requests of ours is kept until they have ended: it may only be out of
        touch, and its count of them must stay true.
        """
        now = self._clock()
        gone = [
            record
            for record in self._workers.values()
            if record.lease.is_over(now) and not record.in_flight
        ]
        for record in gone:
            self._remove(record)
            self._changed(record)
        return gone

    def rotation(self, model: str) -> list[WorkerRecord]:
        """The workers that may be given a request for ``model``; never empty.

        Those whose heartbeats are late are among them only when nobody is punctual, and those whose
        breaker is open only when there is nobody else: one lost connection does not prove that a
        worker is gone, and asking it again costs little.

        Raises:
            ModelNotFoundError: nobody serves, or lately served, this name.
            ModelUnheardOfError: nobody does so far, and this controller is young.
            ModelLoadingError: its workers are still loading.
            NoLiveWorkerError: its workers are gone, failed or leaving.
        """
        now = self._clock()
        serving = self._by_model.get(model, {}).values()
        best = [r for r in serving if r.is_live(now) and r.breaker.lets_pass and r.is_punctual(now)]
        if best:
            return best
        live = [record for record in serving if record.is_live(now)]
        if not live:
            raise self.absence(model)
        return [record for record in live if record.breaker.lets_pass] or live

    def absence(
        self, name: str
    ) -> ModelNotFoundError | ModelUnheardOfError | ModelLoadingError | NoLiveWorkerError:
        """Why nobody can answer for a model, and what to do."""
        now = self._clock()
        serving = [r for r in self._by_model.get(name, {}).values() if not r.lease.is_over(now)]
        if not serving and name not in self._first_seen:
            others = [entry.id for entry in self.models().data]
            age = now - self._began_at
            if age < self._settling_seconds:
                left = self._settling_seconds - age
                return unheard_of(name, others, age_seconds=age, left_seconds=left)
            return not_found(name, others)
        return unavailable(name, serving)

    def model(self, name: str) -> ModelEntry:
        """The entry of one model that can answer now.

        Raises:
            NotFoundError, UnavailableError: as `rotation` does.
        """
        entry = self._entry(name, self._clock())
        if entry is None:
            raise self.absence(name)
        return entry

    def models(self) -> ModelList:
        """The models that can answer now, by name; the same object while nothing has changed.

        It is made anew when a worker's state, models or suspicion change, and when the first lease
        among those it rests on would have ended: renewals only make it true for longer.
        """
        now = self._clock()
        if self._listed is None or now >= self._listed_until:
            entries = (self._entry(name, now) for name in sorted(self._by_model))
            self._listed = ModelList(data=[entry for entry in entries if entry is not None])
            self._listed_until = min(
                (r.lease.ends_at for r in self._workers.values() if r.is_live(now)),
                default=math.inf,
            )
        return self._listed

    def has_live_worker(self) -> bool:
        """Whether any model can answer now."""
        now = self._clock()
        return any(r.is_live(now) and r.suspicion is None for r in self._workers.values())

    def workers(self) -> list[WorkerRecord]:
        """All records, in order of registration, those whose lease is over included."""
        return list(self._workers.values())

    def view(self) -> FleetView:
        """The fleet as its operators see it."""
        now = self._clock()
        return FleetView(
            workers=[
                WorkerView(
                    worker_id=record.worker_id,
                    address=record.address,
                    version=record.version,
                    status=record.status.model_copy(update={"state": record.state}),
                    heartbeat_age_seconds=now - record.lease.renewed_at,
                    lease_seconds=record.lease.seconds,
                    in_flight=record.in_flight,
                    suspect=record.suspicion is not None,
                )
                for record in self._workers.values()
                if not record.lease.is_over(now)
            ]
        )

    def _take(self, message: RegisterRequest, reach: Reach) -> LeaseReply:
        now = self._clock()
        address = message.address.rstrip("/")
        record = self._workers.get(message.worker_id)
        known = record is not None and not record.lease.is_over(now)
        if record is not None and record.address != address:
            self._remove(record)
            record = None
        if record is None:
            before = self._by_address.get(address)
            if before is not None:
                self._remove(before)
                self._replaced_by[before.worker_id] = message.worker_id
            record = WorkerRecord(
                worker_id=message.worker_id,
                address=address,
                version=message.version,
                status=message.status,
                heartbeat_seconds=message.heartbeat_seconds,
                lease=Lease(now, 0.0),
            )
            self._workers[record.worker_id] = record
            self._by_address[record.address] = record
            self._list_models(record)
        elif record.status.models != message.status.models:
            self._unlist_models(record)
            record.status = message.status
            self._list_models(record)
        elif (
            not known
            or record.suspicion is not None
            or record.status.state is not message.status.state
            or record.heartbeat_seconds != message.heartbeat_seconds
            or record.reach.ways != reach.ways
        ):
            self._listed = None
        record.reach = reach
        record.beat(message, now)
        for listener in self._listeners:
            listener(record)
        return LeaseReply(known=known, lease_seconds=record.lease.seconds)

    def _changed(self, record: WorkerRecord) -> None:
        """The model list may not be true any more."""
        self._listed = None
        for listener in self._listeners:
            listener(record)

    def _remove(self, record: WorkerRecord) -> None:
        del self._workers[record.worker_id]
        del self._by_address[record.address]
        self._unlist_models(record)
        # Whoever it replaced may have its address back.
        self._replaced_by = {
            old: new for old, new in self._replaced_by.items() if new != record.worker_id
        }

    def _list_models(self, record: WorkerRecord) -> None:
        self._listed = None
        for card in record.status.models:
            self._by_model.setdefault(card.name, {})[record.worker_id] = record
            if card.name not in self._first_seen:
                if len(self._first_seen) >= MAX_REMEMBERED_MODELS:
                    self._forget_a_model()
                self._first_seen[card.name] = int(self._wall_clock())

    def _unlist_models(self, record: WorkerRecord) -> None:
        self._listed = None
        for card in record.status.models:
            serving = self._by_model.get(card.name)
            if serving is not None:  # a worker may name a model twice
                serving.pop(record.worker_id, None)
                if not serving:
                    del self._by_model[card.name]

    def _forget_a_model(self) -> None:
        """Makes room by the name known longest that nobody serves."""
        gone = next((name for name in self._first_seen if name not in self._by_model), None)
        if gone is not None:
            del self._first_seen[gone]

    def _entry(self, name: str, now: float) -> ModelEntry | None:
        live = [
            record
            for record in self._by_model.get(name, {}).values()
            if record.is_live(now) and record.suspicion is None
        ]
        if not live:
            return None
        card = next(card for card in live[0].status.models if card.name == name)
        return ModelEntry(
            id=name,
            created=self._first_seen.get(name, int(self._wall_clock())),
            metadata=ModelMetadata(
                state=WorkerState.READY,
                worker_count=len(live),
                card=card,
                via=(self.name, *shortest(record.reach.ways.get(name, ()) for record in live)),
            ),
        )
