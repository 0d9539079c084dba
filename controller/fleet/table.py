"""Renders a controller's list of workers as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.protocol.fleet import ModelCard, WorkerState, WorkerView

_HEADER = ("MODEL", "STATE", "WEIGHTS", "BASE", "RUNNING", "WAITING", "BEAT", "ADDRESS")


def render_workers(workers: Sequence[WorkerView]) -> str:
    """One row for each model of each worker, sorted by model and address."""
    if not workers:
        return "no worker is registered"
    rows = sorted(row for worker in workers for row in _rows(worker))
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (_HEADER, *rows)
    ]
    return "\n".join(lines)


def _rows(worker: WorkerView) -> Iterator[tuple[str, ...]]:
    load = worker.status.load
    for card in worker.status.models:
        yield (
            card.name,
            _state(worker),
            _weights(card),
            card.base or "-",
            f"{load.running}/{load.capacity}",
            str(load.waiting),
            f"{worker.heartbeat_age_seconds:.1f} s ago",
            worker.address,
        )


def _state(worker: WorkerView) -> str:
    state, progress = worker.status.state, worker.status.progress
    if state is WorkerState.LOADING and progress is not None:
        return f"loading {progress.fraction:.0%}"
    if state is WorkerState.FAILED and worker.status.detail:
        return f"failed: {worker.status.detail}"
    return f"{state.value} (suspect)" if worker.suspect else state.value


def _weights(card: ModelCard) -> str:
    """How the weights are held: the quantisation, or else the dtype."""
    held = card.dtype or "full" if card.quantisation.value == "none" else card.quantisation.value
    return f"{held} + LoRA" if card.adapter else held
