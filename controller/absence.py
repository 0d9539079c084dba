"""Why nobody can answer for a model: the words of the error, and when to come back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controller.protocol.errors import ModelLoadingError, ModelNotFoundError, NoLiveWorkerError
from controller.protocol.fleet import WorkerState
from controller.worker_record import WorkerRecord

RETRY_AFTER_SECONDS = 2.0  # a supervisor restarts a worker, or another one joins, in about this


def not_found(name: str, others: Sequence[str]) -> ModelNotFoundError:
    """Nobody serves, or lately served, this name; ``others`` answer now."""
    known = ", ".join(others) or "none at the moment"
    return ModelNotFoundError(
        f"The model {name!r} does not exist here; models that answer now: {known}", param="model"
    )


def unavailable(
    name: str, serving: Sequence[WorkerRecord]
) -> ModelLoadingError | NoLiveWorkerError:
    """The name is known; ``serving`` are its workers whose lease is not over, none of them live."""
    loading = [r for r in serving if r.state is WorkerState.LOADING]
    if loading:
        progress = max(
            (r.status.progress for r in loading if r.status.progress is not None),
            key=lambda p: p.fraction,
            default=None,
        )
        how_far = f": {progress.phase}, {progress.fraction:.0%} done" if progress else ""
        return ModelLoadingError(
            f"The model {name!r} is still loading{how_far}; try again shortly",
            param="model",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    failed = next((r for r in serving if r.state is WorkerState.FAILED), None)
    if failed is not None:
        why = f"its worker at {failed.address} failed: {failed.status.detail or 'see its log'}"
    elif any(r.suspicion is not None for r in serving):
        why = "its worker cannot be reached"
    elif any(r.state is WorkerState.DRAINING for r in serving):
        why = "its worker is shutting down"
    else:
        why = "its worker is gone"
    return NoLiveWorkerError(
        f"The model {name!r} has no live worker: {why}; try again once it is back",
        param="model",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
