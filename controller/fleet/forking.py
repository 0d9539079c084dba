"""Which workers of a fleet are forked from a process that has imported what they need.

A worker's environment is read while it imports: threads, precision, folders, which libraries are
loaded. So only workers whose environments are the same are forked from one process, and workers
that are alone with theirs, or that use a GPU, start by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from controller.fleet.commands import ProcessKind, ProcessPlan

# Read by a worker when it begins, and by nothing that it imports.
_READ_LATE: Final = "PARAGONE_WORKER_"

# A fleet file that sets these asks for another interpreter, or other libraries in it.
_START_ALONE: Final = ("PYTHON", "LD_", "DYLD_")

_FEWEST: Final = 2


def shared_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of a worker's environment that has to be another's for both to be forked alike."""
    return {key: value for key, value in environ.items() if not key.startswith(_READ_LATE)}


def with_forks(
    plans: Sequence[ProcessPlan], *, inherited: Mapping[str, str], has_gpus: bool
) -> list[ProcessPlan]:
    """The same plans, with those marked that are to be forked.

    Args:
        plans: of a fleet on this machine.
        inherited: the environment that its processes inherit.
        has_gpus: whether this machine has any.
    """
    groups = {
        plan.name: frozenset(shared_environ(plan.environ(inherited)).items())
        for plan in plans
        if _may_fork(plan, has_gpus=has_gpus)
    }
    sizes = Counter(groups.values())
    return [
        replace(plan, is_forked=plan.name in groups and sizes[groups[plan.name]] >= _FEWEST)
        for plan in plans
    ]


def _may_fork(plan: ProcessPlan, *, has_gpus: bool) -> bool:
    if plan.kind is not ProcessKind.WORKER:
        return False
    if any(key.startswith(_START_ALONE) for key in plan.env):
        return False
    if not has_gpus:
        return _device(plan.args) in {"cpu", "auto"}
    return _device(plan.args) == "cpu" and not any(
        word.startswith("--device-") for word in plan.args
    )


def _device(args: Sequence[str]) -> str:
    """What the last flag of it says: those of the fleet file's `args` come after ours."""
    device = "auto"
    for flag, word in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = flag.partition("=")
        if name.startswith("--de") and "--device".startswith(name):  # it may be abbreviated
            device = value if equals else word
    return device
