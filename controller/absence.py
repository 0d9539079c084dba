"""Why nobody can answer for a model: the words of the error, and when to come back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controller.protocol.errors import (
    ModelLoadingError,
    ModelNotFoundError,
    ModelUnheardOfError,
    NoLiveWorkerError,
)
from controller.protocol.fleet import WorkerState
from controller.worker_record import WorkerRecord

RETRY_AFTER_SECONDS = 2.0  # a supervisor restarts a worker, or another one joins, in about this


def not_found(name: str, others: Sequence[str]) -> ModelNotFoundError:
    """Nobody serves, or lately served, this name; ``others`` answer now."""
    known = ", ".join(others) or "none at the moment"
    return ModelNotFoundError(
        f"The model {name!r} does not exist here; models that answer now: {known}", param="model"
    )


def unheard_of(
    name: str, others: Sequence[str], *, age_seconds: float, left_seconds: float
) -> ModelUnheardOfError:
    """Nobody has told of this name so far, of which not all may have had the time.

    Args:
        name: the model's.
        others: the models that answer now.
        age_seconds: of this controller.
        left_seconds: until a name that nobody has told of is taken for a wrong one.
    """
    known = ", ".join(others) or "none so far"
    return ModelUnheardOfError(
        f"The model {name!r} has not registered here yet, or does not exist: this controller "
        f"started {age_seconds:.0f} s ago, and workers may still be coming back; models that "
        f"answer now: {known}; check the name, or try again shortly",
        param="model",
        retry_after_seconds=min(left_seconds, RETRY_AFTER_SECONDS),
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
