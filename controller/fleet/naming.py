"""That each model of a fleet has a name of its own. Pure.

Workers that serve one name take turns at its requests, so two checkpoints must not share one.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.fleet.worker_spec import WorkerSpec


def name_problems(workers: Sequence[WorkerSpec]) -> list[str]:
    """The names that two models would have: of workers, of adapters, of bases beside adapters.

    A base may be served by several workers under its one name, if all of them hold it alike.
    """
    problems = []
    first_of: dict[str, int] = {}
    for index, worker in enumerate(workers):
        first = first_of.setdefault(worker.name, index)
        if first != index:
            problems.append(
                f"workers[{index}].name: {worker.name!r} is also the name of workers[{first}]"
            )
    for index, worker in enumerate(workers):
        for name in worker.loras:
            first = first_of.setdefault(name, index)
            if first != index or name == worker.name:
                problems.append(
                    f"workers[{index}].loras.{name}: is also a model of workers[{first}]"
                )
    for index, worker in enumerate(workers):
        base = worker.base_name
        if base is None:
            continue
        first = first_of.setdefault(base, index)
        weights = _weights_of(worker, base)
        if weights is None or weights != _weights_of(workers[first], base):
            problems.append(
                f"workers[{index}].model_base: is served too, as {base!r} by its folder's name, "
                f"which is also a model of workers[{first}]; rename that one, or let model_base "
                f"be a link of another name"
            )
    return problems


def _weights_of(worker: WorkerSpec, name: str) -> tuple[object, ...] | None:
    """What a worker answers from under a name, comparable; None: nothing that is a base alone."""
    held = (worker.quantisation, worker.loading)
    if name == worker.name:
        return None if worker.model_base is not None else (worker.model_path, *held)
    if name in worker.loras:
        return None
    return (worker.model_base, *held) if name == worker.base_name else None
