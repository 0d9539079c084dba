"""What a worker needs of a machine, and which machines of a cluster have it; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import ByteSize, Field

from controller.fleet.section import Section

GPU: Final = "GPU"
CPU: Final = "CPU"
MEMORY: Final = "memory"  # bytes


class RaySpec(Section):
    """What a worker asks of a Ray cluster, beside its GPUs."""

    cpus: float | None = Field(
        default=None, gt=0, description="CPUs; by default as many as `threads`, or else 1"
    )
    memory: ByteSize | None = Field(
        default=None,
        description="memory of the host: 24GiB; by default what `paragone inspect` says of a "
        "worker on the CPU, and nothing of one on a GPU",
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="resources of the cluster's own: {a100: 1}"
    )


@dataclass(frozen=True, slots=True)
class Needs:
    """What a process takes of a machine for as long as it runs.

    Args:
        amounts: by the resource's name in Ray; memory in bytes. None of them is 0.
    """

    amounts: Mapping[str, float] = field(default_factory=dict)

    def also(self, name: str, amount: float) -> Needs:
        """The same and so much of another resource, unless it is named already."""
        return Needs({name: amount, **self.amounts}) if amount else self

    def __str__(self) -> str:
        """For people: `2 GPU, 1 CPU and 3.0 GiB of memory`."""
        parts = [amount_of(name, amount) for name, amount in self.amounts.items()]
        return _listed(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster, or what takes itself for one.

    Args:
        node_id: the cluster's name for it.
        address: where others reach it.
        total: what it has, by the resource's name.
    """

    node_id: str
    address: str
    total: Mapping[str, float]

    def can_ever_take(self, needs: Needs) -> bool:
        """Whether it would have enough if nothing ran on it."""
        return all(self.total.get(name, 0) >= amount for name, amount in needs.amounts.items())


def gpus_shared(gpus: int, replicas: int) -> float:
    """What one of the replicas has of a worker's GPUs: some, or a part of one."""
    if not gpus:
        return 0
    return gpus // replicas if gpus >= replicas else 1 / math.ceil(replicas / gpus)


def never_met(needs: Needs, nodes: Sequence[Node]) -> str | None:
    """Why no node could ever take a process; None if one could."""
    if any(node.can_ever_take(needs) for node in nodes):
        return None
    for name, amount in needs.amounts.items():
        most = max((node.total.get(name, 0) for node in nodes), default=0)
        if most < amount:
            return f"needs {amount_of(name, amount)} on one node, and no node has more than " + (
                amount_of(name, most) if most else "none"
            )
    return f"needs {needs} on one node, and no node has all of it"


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a process has no place yet.

    Args:
        cause: for people.
        may_have_a_place: whether what is missing may be kept for it already, somewhere where its
            process has yet to start.
    """

    cause: str
    may_have_a_place: bool = False


def waits_for(
    needs: Needs, nodes: Sequence[Node], free: Mapping[str, float], taken: Sequence[Needs] = ()
) -> Wait | None:
    """What a process waits for that was not placed yet; None if there is enough of everything.

    A cluster does not tell for whom it keeps what is not free. What the processes that are known to
    have a place do not account for may be anybody's: another job's, or this very process's.

    Args:
        needs: the process's.
        nodes: those that live.
        free: what nobody uses, of all nodes together.
        taken: what those have that are known to have a place.
    """
    never = never_met(needs, nodes)
    if never is not None:
        return Wait(f"waits for a node: it {never}")
    missing = [name for name, amount in needs.amounts.items() if free.get(name, 0) < amount]
    if not missing:
        return None
    total = {name: sum(node.total.get(name, 0) for node in nodes) for name in needs.amounts}
    anybodys = {
        name: total[name] - free.get(name, 0) - sum(each.amounts.get(name, 0) for each in taken)
        for name in needs.amounts
    }
    # Cluster and processes may round such amounts otherwise.
    is_kept = all(anybodys[name] >= 0.999 * amount for name, amount in needs.amounts.items())
    name = missing[0]
    return Wait(
        f"waits for a place{', or for its process to start' if is_kept else ''}: it needs "
        f"{amount_of(name, needs.amounts[name])}; {amount_of(name, free.get(name, 0))} of "
        f"{amount_of(name, total[name])} are free in the cluster",
        may_have_a_place=is_kept,
    )


def amount_of(name: str, amount: float) -> str:
    """A resource's amount for people."""
    return f"{amount / 2**30:.1f} GiB of memory" if name == MEMORY else f"{amount:g} {name}"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
