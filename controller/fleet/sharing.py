"""How many workers of a fleet share the memory of a device. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controller.fleet.worker_spec import WorkerSpec

_HOST, _ANY = "host", "any"
_CUDA = "cuda:"


def sharers(workers: Sequence[WorkerSpec]) -> list[int]:
    """For each worker, how many of them may hold memory where it does, itself included.

    Args:
        workers: each process of its own, with the GPUs of its own.
    """
    found = [_devices(worker) for worker in workers]
    return [sum(_meet(one, other) for other in found) for one in found]


def _devices(worker: WorkerSpec) -> frozenset[str]:
    if worker.device == "cpu" or worker.gpus == ():
        return frozenset({_HOST})
    if worker.gpus is not None:
        return frozenset(map(str, worker.gpus))
    if worker.device.startswith(_CUDA):
        return frozenset({worker.device.removeprefix(_CUDA)})
    return frozenset({_ANY})  # a GPU where there is one


def _meet(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one & other) or _ANY in one | other
