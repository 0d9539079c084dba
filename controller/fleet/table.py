"""Renders a controller's list of workers as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.protocol.fleet import WorkerView

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
            worker.shown_state,
            card.shown_weights,
            card.base or "-",
            f"{load.running}/{load.capacity}",
            str(load.waiting),
            f"{worker.heartbeat_age_seconds:.1f} s ago",
            worker.address,
        )
