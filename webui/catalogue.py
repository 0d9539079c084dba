"""What the page knows of the fleet: one entry a model name, in the order the columns take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.protocol.fleet import (
    FleetView,
    LoadProgress,
    ModelCard,
    Quantisation,
    WorkerLoad,
    WorkerState,
    WorkerView,
)
from webui.answer import AskedModel

# The best worker of a model speaks for it.
_STATE_RANK = {
    WorkerState.READY: 0,
    WorkerState.LOADING: 1,
    WorkerState.DRAINING: 2,
    WorkerState.FAILED: 3,
}
_QUANTISATION_RANK = {Quantisation.NONE: 0, Quantisation.INT8: 1, Quantisation.NF4: 2}


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model name and how the workers that serve it are."""

    card: ModelCard
    state: WorkerState
    num_ready: int  # workers that take requests
    running: int  # requests, all its workers together
    waiting: int
    progress: LoadProgress | None = None  # while loading
    detail: str | None = None  # why it failed
    memory_bytes: Mapping[str, int] = field(default_factory=dict)  # by worker

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models of the fleet, and why the controller could not be asked if it could not.

    With a ``problem`` the models are those of the last answer.

    Attributes:
        models: of the fleet, now.
        problem: why the controller could not be asked.
        problem_address: where it was asked.
        fixed: the names that may be chosen, where an operator wants these and no others; None:
            those of the fleet.
    """

    models: tuple[ModelStatus, ...] = ()
    problem: str | None = None
    problem_address: str | None = None
    fixed: tuple[str, ...] | None = None

    def get(self, name: str | None) -> ModelStatus | None:
        """The model of this name, if the fleet has it now."""
        return next((model for model in self.models if model.name == name), None)

    def describe(self, name: str, worker_id: str | None) -> AskedModel | None:
        """Who a question to this model goes to, as far as the fleet says it."""
        model = self.get(name)
        if model is None:
            return None
        memory = model.memory_bytes
        if worker_id is None and len(memory) == 1:
            (worker_id,) = memory
        return AskedModel(model.card, None if worker_id is None else memory.get(worker_id))

    @property
    def offered(self) -> tuple[str, ...]:
        """The names that can be chosen, in display order."""
        return tuple(model.name for model in self.models) if self.fixed is None else self.fixed

    @property
    def num_ready(self) -> int:
        """Models that answer now."""
        return sum(model.state is WorkerState.READY for model in self.models)


def catalogue_of(view: FleetView) -> Catalogue:
    """The models that the workers of a fleet serve, in display order.

    Full checkpoints come before adapters, and 16-bit weights before 8 and 4 bits, so that the
    leftmost column is the one that the others are measured against; then by name.
    """
    serving: dict[str, list[tuple[ModelCard, WorkerView]]] = {}
    for worker in view.workers:
        if worker.heartbeat_age_seconds > worker.lease_seconds:
            continue
        for card in worker.status.models:
            serving.setdefault(card.name, []).append((card, worker))
    models = [_status(workers) for workers in serving.values()]
    return Catalogue(tuple(sorted(models, key=_order)))


def default_columns(
    catalogue: Catalogue, current: Sequence[str | None], *, limit: int
) -> list[str]:
    """The models that columns show when nobody has chosen: the known ones, never fewer than before.

    A model that went away keeps its place, so that its column can say so.
    """
    known = catalogue.offered
    kept = [name for name in current if name is not None]
    if len(kept) >= limit or set(known) <= set(kept):
        return kept[:limit]
    gone = [name for name in kept if name not in known]
    return [*known, *gone][:limit]


def _status(workers: Sequence[tuple[ModelCard, WorkerView]]) -> ModelStatus:
    best_card, best = min(workers, key=lambda pair: _STATE_RANK[pair[1].status.state])
    statuses = [worker.status for _, worker in workers]
    return ModelStatus(
        card=best_card,
        state=best.status.state,
        num_ready=sum(status.state is WorkerState.READY for status in statuses),
        running=sum(status.load.running for status in statuses),
        waiting=sum(status.load.waiting for status in statuses),
        progress=best.status.progress,
        detail=best.status.detail,
        memory_bytes={
            worker.worker_id: memory
            for _, worker in workers
            if (memory := _memory(worker.status.load)) is not None
        },
    )


def _memory(load: WorkerLoad) -> int | None:
    """On the device where there is one, else the process's own."""
    return load.memory_bytes if load.device_memory_bytes is None else load.device_memory_bytes


def _order(model: ModelStatus) -> tuple[bool, int, str]:
    card = model.card
    return (card.adapter is not None, _QUANTISATION_RANK[card.quantisation], card.name)
