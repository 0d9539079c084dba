"""A Ray cluster as the place of a fleet: its workers there, controller and page on this machine."""

from __future__ import annotations

import contextlib
import io
import os
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from controller.chassis.network import is_loopback
from controller.fleet.commands import ProcessKind, ProcessPlan, plan_fleet
from controller.fleet.console import Console
from controller.fleet.memory import memory_on_hosts
from controller.fleet.needs import GPU, MEMORY, Needs, Node, never_met, waits_for
from controller.fleet.on_ray.cluster import Cluster
from controller.fleet.on_ray.fitting import EVERY_INTERFACE, for_cluster, needs_of, reached_at
from controller.fleet.on_ray.keeper import RayKeeper
from controller.fleet.on_ray.messages import Tending
from controller.fleet.place import Keeping, ProcessKeeper, ThisMachine
from controller.fleet.preflight import find_missing, find_taken_ports
from controller.fleet.spec import FleetSpec

_COLOURS: Final = re.compile(r"\x1b\[[\d;]*m")


@contextlib.contextmanager
def on_ray(environ: Mapping[str, str]) -> Iterator[RayPlace]:
    """The cluster, for as long as it is entered.

    Args:
        environ: may name the cluster.

    Raises:
        PlaceError: there is no cluster.
    """
    cluster = Cluster.connect(environ)
    try:
        yield RayPlace(cluster)
    finally:
        cluster.close()


class RayPlace:
    """Where a fleet runs. Made by `on_ray`.

    Args:
        cluster: places the workers.
    """

    name = "ray"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._here = ThisMachine()
        self._spec: FleetSpec | None = None
        self._memory: dict[str, int] = {}  # bytes, by process, of those that name none
        # By what follows them, as long as that is there.
        self._needs_of: weakref.WeakKeyDictionary[RayKeeper, Needs] = weakref.WeakKeyDictionary()

    def plans(self, spec: FleetSpec) -> list[ProcessPlan]:
        """Workers with what they ask of the cluster; the rest as on this machine."""
        self._spec = spec
        workers = {worker.name: worker for worker in spec.workers}
        has_gpus = any(node.total.get(GPU) for node in self._cluster.nodes())
        here = plan_fleet(spec, cores=1)
        controller = next(plan for plan in here if plan.kind is ProcessKind.CONTROLLER)
        return [
            for_cluster(
                plan,
                worker,
                needs=needs_of(worker, cluster_has_gpus=has_gpus),
                controller_url=self._seen_by_nodes(controller),
                environ=os.environ,
            )
            if (worker := workers.get(plan.spec_name)) is not None
            else plan
            for plan in here
        ]

    def problems(
        self,
        spec: FleetSpec,
        new: Sequence[ProcessPlan],
        *,
        running: Sequence[ProcessPlan] = (),
        check_memory: bool,
        wait_for_nodes: bool,
    ) -> list[str]:
        """What is wrong here, then whether nodes have what is needed, then what they lack."""
        workers = [plan for plan in new if plan.kind is ProcessKind.WORKER]
        local = [plan for plan in new if plan.kind is not ProcessKind.WORKER]
        ours = {(plan.host, plan.port) for plan in running}
        nodes = self._cluster.nodes()
        problems = [
            *find_missing((), local),
            *find_taken_ports(local, ports_of_ours=ours),
            *self._out_of_reach(spec, nodes),
            *_not_for_ray(spec),
        ]
        if check_memory:
            problems += self._learn_memory(spec, workers)
        if not wait_for_nodes:
            reasons = {
                plan.name: why for plan in workers if (why := never_met(self._needs(plan), nodes))
            }
            problems += [
                f"{name}: {why}; add such a node, ask for less, or wait for one with "
                f"--wait-for-nodes"
                for name, why in reasons.items()
            ]
        if problems or not workers:
            return problems
        able = [n for n in nodes if any(n.can_ever_take(self._needs(plan)) for plan in workers)]
        names = {plan.spec_name for plan in workers}
        return self._cluster.survey(able, [w for w in spec.workers if w.name in names], workers)

    def keeper(self, plan: ProcessPlan, keeping: Keeping) -> ProcessKeeper:
        """For a worker, what follows it on the cluster."""
        if plan.kind is not ProcessKind.WORKER:
            return self._here.keeper(plan, keeping)
        assert self._spec is not None  # noqa: S101 - the plan is of it
        spec, needs = self._spec, self._needs(plan)
        tending = Tending(plan=plan, rule=keeping.rule, grace_seconds=spec.stop_grace_seconds)
        replicas = {worker.name: worker.replicas for worker in spec.workers}
        keeper = RayKeeper(
            plan,
            start=lambda: self._cluster.start(
                tending,
                needs,
                # One lost node is not to take all of them; others leave room for large ones.
                spread=replicas.get(plan.spec_name, 1) > 1,
                is_reached=not is_loopback(spec.controller.host),
            ),
            cause=lambda: waits_for(
                needs, self._cluster.nodes(), self._cluster.free(), self._taken()
            ),
            rule=keeping.rule,
            reporter=keeping.reporter,
            clock=keeping.clock,
        )
        self._needs_of[keeper] = needs
        return keeper

    def showing(self, console: Console) -> contextlib.redirect_stdout[_Printed]:
        """Ray prints what happens to its nodes; among JSON lines and boards that is a line too."""
        return contextlib.redirect_stdout(_Printed(console))

    def _needs(self, plan: ProcessPlan) -> Needs:
        return plan.needs.also(MEMORY, self._memory.get(plan.name, 0))

    def _taken(self) -> list[Needs]:
        """What workers have that are known to have a place; called from any thread."""
        return [needs for keeper, needs in list(self._needs_of.items()) if keeper.has_place]

    def _learn_memory(self, spec: FleetSpec, workers: Sequence[ProcessPlan]) -> list[str]:
        """GPU workers take next to nothing of their host, once they are loaded."""
        unknown = [p for p in workers if not p.needs.amounts.keys() & {GPU, MEMORY}]
        amounts, problems = memory_on_hosts(spec, unknown)
        self._memory |= amounts
        return problems

    def _seen_by_nodes(self, controller: ProcessPlan) -> str:
        """Where nodes reach the controller; it runs on this one."""
        if controller.host not in EVERY_INTERFACE:
            return controller.url
        return reached_at(controller.url, self._cluster.here)

    def _out_of_reach(self, spec: FleetSpec, nodes: Sequence[Node]) -> Iterator[str]:
        others = sorted({node.address for node in nodes} - {self._cluster.here})
        if is_loopback(spec.controller.host) and others:
            yield (
                f"controller: workers on {', '.join(others)} cannot reach it on "
                f"{spec.controller.host}; give it `host: 0.0.0.0` or an address of "
                f"{self._cluster.here}'s, API keys and a fleet token (docs/fleets.md, On Ray)"
            )


def _not_for_ray(spec: FleetSpec) -> Iterator[str]:
    for worker in spec.workers:
        if worker.device == "mps":
            yield (
                f"{worker.name}: device: Ray does not know Apple's GPUs; use cpu, or leave out "
                f"--on ray"
            )


class _Printed(io.TextIOBase):
    """Takes what is printed; the first line of each text, as the rest are Ray's own logs."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        lines = _COLOURS.sub("", text).strip().splitlines()
        if lines:
            self._console.note(f"Ray says: {lines[0]}")
        return len(text)
