"""A running fleet that can be changed: the fleet file read again, a worker scaled, the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controller.fleet.control import RefusedError
from controller.fleet.fleet_file import load_fleet_file, with_replicas
from controller.fleet.log_book import LogBook
from controller.fleet.place import Place
from controller.fleet.restart import RestartRule
from controller.fleet.spec import FleetSpec
from controller.fleet.supervisor import Supervisor


class LiveFleet:
    """What the control socket commands.

    Args:
        path: the fleet file.
        spec: what it said when the fleet was started.
        place: where it runs.
        supervisor: runs the fleet.
        logs: its processes' lines.
        wait_for_nodes: whether it was started with workers that no node could take.
    """

    def __init__(
        self,
        path: Path,
        spec: FleetSpec,
        place: Place,
        supervisor: Supervisor,
        logs: LogBook,
        *,
        wait_for_nodes: bool,
    ) -> None:
        self.logs = logs
        self._path = path
        self._spec = spec
        self._place = place
        self._supervisor = supervisor
        self._wait_for_nodes = wait_for_nodes  # as the last `up` said
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, *, check_memory: bool, wait_for_nodes: bool, place: str) -> str:
        """Takes over the fleet file as it is now; unchanged processes run on.

        Args:
            check_memory: whether it is asked what checkpoints take.
            wait_for_nodes: whether workers are taken that no node could run as it is now; it holds
                for later scaling too.
            place: where the fleet is taken to run; empty if that was not said.

        Raises:
            FleetFileError: it is not a fleet file.
            RefusedError: it runs somewhere else, or the changed processes could not be started;
                nothing was changed.
        """
        if place not in {"", self._place.name}:
            raise RefusedError(
                f"{self._path} runs on {self._place.name}, not on {place}: `paragone down` first"
            )
        async with self._one_at_a_time:
            spec = await asyncio.to_thread(load_fleet_file, self._path)
            changed = await self._change_to(
                spec, check_memory=check_memory, wait_for_nodes=wait_for_nodes
            )
            self._wait_for_nodes = wait_for_nodes
            return changed

    async def scale(self, name: str, replicas: int) -> str:
        """Runs a worker so many times, until the fleet file is applied again.

        Raises:
            FleetFileError: it cannot be run so often: ports or GPUs are missing.
            RefusedError: there is no such worker, or the new processes could not be started.
        """
        async with self._one_at_a_time:
            if name not in {worker.name for worker in self._spec.workers}:
                known = ", ".join(worker.name for worker in self._spec.workers)
                raise RefusedError(f"no worker is called {name!r}; there are {known}")
            spec = with_replicas(self._spec, name, replicas)
            return await self._change_to(
                spec, check_memory=True, wait_for_nodes=self._wait_for_nodes
            )

    def stop(self, *, now: bool) -> None:
        """Stops the fleet; ``now``: without a grace."""
        self._supervisor.stop(now=now)

    def names(self, name: str) -> list[str]:
        """The processes of a name, its replicas included; all for an empty one."""
        every = [plan.name for plan in self._supervisor.plans]
        return [n for n in every if name in ("", n, n.split("#")[0])]

    @property
    def controller_url(self) -> str:
        """Where its controller is reached."""
        return self._supervisor.controller_url

    def troubles(self) -> list[str]:
        """A line for each process that does not run, and why."""
        return self._supervisor.troubles()

    async def _change_to(self, spec: FleetSpec, *, check_memory: bool, wait_for_nodes: bool) -> str:
        plans = await asyncio.to_thread(self._place.plans, spec)
        running = self._supervisor.plans
        new = [p for p in plans if not any(p.is_same_process(other) for other in running)]
        problems = await asyncio.to_thread(
            self._place.problems,
            spec,
            new,
            running=running,
            check_memory=check_memory,
            wait_for_nodes=wait_for_nodes,
        )
        if problems:
            raise RefusedError(
                "\n".join(["nothing was changed:", *(f"  - {text}" for text in problems)])
            )
        changes = await self._supervisor.change_to(
            plans,
            rule=RestartRule(**spec.restart.model_dump()),
            grace_seconds=spec.stop_grace_seconds,
        )
        self._spec = spec
        return str(changes)
