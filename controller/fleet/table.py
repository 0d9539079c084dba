"""Renders a controller's list of workers as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.protocol.fleet import WorkerState, WorkerView

_HEADER = ("MODEL", "STATE", "WEIGHTS", "BASE", "RUNNING", "WAITING")
# Room for keys and values in use, prompt tokens that were not read again, memory of the process and
# of the device: left out where no worker says anything of them.
_TOLD_BY_SOME = ("KV", "CACHE", "MEMORY", "GPU")
_LAST = ("BEAT", "VERSION", "ADDRESS")
_NOTHING = "-"


def render_workers(workers: Sequence[WorkerView]) -> str:
    """One row for each model of each worker, sorted by model and address."""
    if not workers:
        return "no worker is registered"
    rows = sorted(row for worker in workers for row in _rows(worker))
    columns = [
        column
        for column in zip((*_HEADER, *_TOLD_BY_SOME, *_LAST), *rows, strict=True)
        if column[0] not in _TOLD_BY_SOME or any(cell != _NOTHING for cell in column[1:])
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines)


def _rows(worker: WorkerView) -> Iterator[tuple[str, ...]]:
    load = worker.status.load
    for card in worker.status.models:
        yield (
            card.name,
            _state(worker),
            card.shown_weights,
            card.base or _NOTHING,
            f"{load.running}/{load.capacity}",
            str(load.waiting),
            _share(load.kv_use),
            _share(load.cache_hit_rate),
            _memory(load.memory_bytes),
            _memory(load.device_memory_bytes),
            f"{worker.heartbeat_age_seconds:.1f} s ago",
            worker.version,
            worker.address,
        )


def _state(worker: WorkerView) -> str:
    progress = worker.status.progress
    if worker.status.state is WorkerState.LOADING and progress is not None:
        return f"{worker.shown_state}: {progress.phase}"
    return worker.shown_state


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.0%}"


def _memory(amount: int | None) -> str:
    return _NOTHING if amount is None else f"{amount / 2**30:.1f} GiB"
