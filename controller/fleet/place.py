"""Where a fleet's processes run: this machine, or what places them for us."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from controller.fleet.commands import ProcessPlan, plan_fleet
from controller.fleet.console import Console
from controller.fleet.cores import usable_cores
from controller.fleet.fork_servers import ForkServers
from controller.fleet.forking import with_forks
from controller.fleet.groups import ProcessGroups
from controller.fleet.keeper import Keeper
from controller.fleet.memory import memory_problems
from controller.fleet.preflight import find_problems
from controller.fleet.reporter import Reporter
from controller.fleet.restart import ProcessState, RestartRule
from controller.fleet.spec import FleetSpec

# Of NVIDIA's and of AMD's.
_GPU_DRIVERS: Final = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


class PlaceError(Exception):
    """Nothing can be started there; the message says why and what to do."""


class ProcessKeeper(Protocol):
    """Keeps one process of a fleet running until it is told to stop."""

    @property
    def plan(self) -> ProcessPlan:
        """The process as the fleet file has it."""
        ...

    @property
    def state(self) -> ProcessState:
        """Where it is in its life."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process id where it runs; None while it does not."""
        ...

    @property
    def url(self) -> str | None:
        """Where it is reached now, without a trailing slash; None while nobody knows."""
        ...

    @property
    def place(self) -> str:
        """The machine that it runs on; empty for this one."""
        ...

    @property
    def reason(self) -> str:
        """Why it was given up, or what it waits for."""
        ...

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        ...

    def became_ready(self) -> None:
        """Somebody has seen that it serves."""
        ...

    async def run(self, *, stop: asyncio.Event, hurry: asyncio.Event, grace_seconds: float) -> None:
        """Runs until ``stop`` is set, or until the process has to be given up."""
        ...


@dataclass(frozen=True, slots=True)
class Keeping:
    """What every keeper of a fleet is given.

    Args:
        rule: when a process is started again.
        reporter: is told what it says.
        groups: is told of process groups of this machine.
        inherited: the environment that processes inherit.
        forks: forks processes of this machine.
        clock: monotonic seconds.
    """

    rule: RestartRule
    reporter: Reporter
    groups: ProcessGroups
    inherited: Mapping[str, str]
    forks: ForkServers
    clock: Callable[[], float] = time.monotonic


class Place(Protocol):
    """Where a fleet runs."""

    name: str

    def plans(self, spec: FleetSpec) -> list[ProcessPlan]:
        """A fleet's processes as they are to be started there."""
        ...

    def problems(
        self,
        spec: FleetSpec,
        new: Sequence[ProcessPlan],
        *,
        running: Sequence[ProcessPlan] = (),
        check_memory: bool,
        wait_for_nodes: bool,
    ) -> list[str]:
        """What would keep processes from starting there, each with its way out.

        Args:
            spec: the fleet.
            new: what is to be started of it.
            running: what of the fleet runs already; its ports are no problem.
            check_memory: whether it is asked what checkpoints take.
            wait_for_nodes: take what no node could ever run as it is now; it waits for one.
        """
        ...

    def keeper(self, plan: ProcessPlan, keeping: Keeping) -> ProcessKeeper:
        """What keeps one of the processes running there."""
        ...

    def showing(self, console: Console) -> AbstractContextManager[object]:
        """While it is entered, what the place itself has to say is shown."""
        ...


class ThisMachine:
    """Processes are children of this one."""

    name = "this machine"

    def plans(self, spec: FleetSpec) -> list[ProcessPlan]:
        """As the fleet file has them."""
        plans = plan_fleet(spec, cores=usable_cores())
        if not spec.fork_workers:
            return plans
        has_gpus = any(path.exists() for path in _GPU_DRIVERS)
        return with_forks(plans, inherited=os.environ, has_gpus=has_gpus)

    def problems(
        self,
        spec: FleetSpec,
        new: Sequence[ProcessPlan],
        *,
        running: Sequence[ProcessPlan] = (),
        check_memory: bool,
        wait_for_nodes: bool,
    ) -> list[str]:
        """Ports, folders, packages, then memory."""
        if wait_for_nodes:
            return ["--wait-for-nodes is for clusters: --on ray"]
        # The ports of what is to be stopped are free by then; those of what stays are no new ones'.
        ours = {(plan.host, plan.port) for plan in running}
        problems = find_problems(spec, new, ports_of_ours=ours)
        if check_memory and not problems:
            problems = memory_problems(spec, new)
        return problems

    def keeper(self, plan: ProcessPlan, keeping: Keeping) -> Keeper:
        """A keeper with a child."""
        return Keeper(
            plan,
            rule=keeping.rule,
            reporter=keeping.reporter,
            groups=keeping.groups,
            inherited=keeping.inherited,
            clock=keeping.clock,
            forks=keeping.forks,
        )

    def showing(self, console: Console) -> AbstractContextManager[object]:  # noqa: ARG002 - it says nothing
        """Nothing."""
        return nullcontext()
