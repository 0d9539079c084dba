"""Commands of a fleet's processes for other machines: other addresses, other folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.fleet.commands import (
    ProcessKind,
    ProcessPlan,
    paths_in,
    plan_fleet,
    with_values,
)
from controller.fleet.spec import FleetSpec
from controller.fleet.worker_spec import WorkerSpec

EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - a container's own network; what is published is said apart

# Where images and pods find checkpoints.
_MODELS = "/models"

# Supervisors and container engines collect lines for programs.
_JSON_LOGS = "--log-format"

# Variables that pin GPUs on one machine; whoever places a process does that instead.
_PINNING = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"})


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders of this machine and where they are elsewhere.

    Args:
        inside: the place elsewhere, by the folder here; both absolute.
    """

    inside: Mapping[str, str]

    def mounted_by(self, plan: ProcessPlan) -> list[tuple[str, str]]:
        """The folders that a process needs: here, and there."""
        paths = dict.fromkeys(path for _before, path in paths_in(plan.args))
        return [(here, self.inside[here]) for here in paths if here in self.inside]


def folders_of(plans: Iterable[ProcessPlan]) -> Folders:
    """A place below ``/models`` for every path on the workers' command lines."""
    paths = dict.fromkeys(
        path
        for plan in plans
        if plan.kind is ProcessKind.WORKER
        for _before, path in paths_in(plan.args)
        if path.startswith("/")
    )
    taken: dict[str, str] = {}
    for path in paths:
        name = Path(path).name
        place = f"{_MODELS}/{name}"
        if place in taken.values():  # two checkpoints of one name
            place = f"{_MODELS}/{len(taken)}/{name}"
        taken[path] = place
    return Folders(taken)


def placed_args(
    plan: ProcessPlan, replaced: Mapping[str, str], folders: Folders | None = None
) -> list[str]:
    """A command's flags with other values.

    Args:
        plan: the process.
        replaced: new values, by flag; flags that it does not have are left out.
        folders: where its folders are, if not where they are here.
    """
    inside = {} if folders is None else folders.inside
    moved = [before + inside.get(path, path) for before, path in paths_in(plan.args)]
    words = [*with_values(moved, replaced)]
    if _JSON_LOGS not in words:
        words += [_JSON_LOGS, "json"]
    if plan.kind is ProcessKind.CONTROLLER and replaced.get("--host") == EVERY_INTERFACE:
        words.append("--allow-anonymous-network-access")
    return words


def placed_env(plan: ProcessPlan) -> dict[str, str]:
    """The fleet file's variables, without what pins a process to GPUs of one machine.

    That it is to see no GPU (an empty value) is true on every machine, and stays.
    """
    return {key: value for key, value in plan.env.items() if key not in _PINNING or not value}


def first_replicas(spec: FleetSpec) -> list[tuple[ProcessPlan, WorkerSpec | None]]:
    """Each process once, with its worker's entry, for those who make replicas themselves."""
    single = spec.model_copy(
        update={
            "workers": tuple(w.replica(0) for w in spec.workers),
        }
    )
    by_name = {worker.name: worker for worker in spec.workers}
    return [(plan, by_name.get(plan.spec_name)) for plan in plan_fleet(single, cores=1)]


def gpu_count(worker: WorkerSpec) -> int:
    """The GPUs that one replica is to have; 0 where it computes on the CPU.

    Without a word of the fleet file it is one, on whatever machine the process is put.
    """
    if worker.device in {"cpu", "mps"}:
        return 0
    gpus = worker.replica(0).gpus
    return (worker.loading.num_gpus or 1) if gpus is None else len(gpus)


def label(plan: ProcessPlan) -> str:
    """A name that DNS takes: lower-case letters, digits and hyphens."""
    lowered = "".join(c if c.isalnum() else "-" for c in plan.name.lower()).strip("-")
    return lowered or plan.kind.value


def from_here(path: str) -> str:
    """A path as it is written in a file of the current folder."""
    here = Path(path)
    return f"./{os.path.relpath(here)}" if here.is_relative_to(Path.cwd()) else path
