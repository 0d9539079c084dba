"""The Ray cluster, as far as a fleet needs it."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from controller.fleet.commands import ProcessPlan
from controller.fleet.needs import CPU, GPU, MEMORY, Needs, Node
from controller.fleet.on_ray.host import WorkerHost
from controller.fleet.on_ray.messages import (
    DeadError,
    LostError,
    News,
    Order,
    Tending,
)
from controller.fleet.place import PlaceError
from controller.fleet.preflight import find_missing
from controller.fleet.worker_spec import WorkerSpec

_ADDRESS_VARIABLE: Final = "RAY_ADDRESS"

_KNOCK_SECONDS: Final = 5.0

# A node starts a Python process and imports us before it answers; several do where nodes are busy.
_SURVEY_SECONDS: Final = 120.0


class Hosted:
    """A worker's actor, seen from the supervisor.

    Args:
        actor: Ray's handle. Without it the actor ends.
    """

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 - Ray makes the type at run time
        self._actor = actor

    async def news(self, life: str, after: int) -> News:
        """What happened there; waits until it is placed.

        Raises:
            LostError: it went with its node, and Ray starts it again.
            DeadError: it does not come back.
        """
        news: News = await self._answer(self._actor.news.remote(life, after))
        return news

    async def tell(self, order: Order) -> None:
        """Passes an order on; raises as `news` does."""
        await self._answer(self._actor.tell.remote(order))

    async def ended(self) -> None:
        """Waits until nothing runs there any more; raises as `news` does."""
        await self._answer(self._actor.ended.remote())

    def kill(self) -> None:
        """Ends the actor for good; what still runs beside it is asked to stop by that."""
        ray.kill(self._actor, no_restart=True)

    async def _answer(self, reference: Any) -> Any:  # noqa: ANN401 - Ray's
        try:
            return await reference
        except ray.exceptions.ActorUnavailableError as exc:
            raise LostError(str(exc)) from exc
        except ray.exceptions.RayError as exc:
            raise DeadError(_last_line(exc)) from exc


class Cluster:
    """A connection to a Ray cluster. Made by `connect`.

    Args:
        here: the address of the node that this process is on.
    """

    def __init__(self, here: str) -> None:
        self.here = here

    @classmethod
    def connect(cls, environ: Mapping[str, str]) -> Cluster:
        """Joins the cluster of `RAY_ADDRESS`, else the one that this machine is a node of.

        Raises:
            PlaceError: there is none, or it cannot be joined.
        """
        address = environ.get(_ADDRESS_VARIABLE, "auto")
        if "://" in address or address == "local":
            raise PlaceError(
                f"{_ADDRESS_VARIABLE}={address}: `paragone up --on ray` runs on a node of the "
                f"cluster and takes its host:port, or nothing on a node"
            )
        if address != "auto":
            _knock(address)
        try:
            # Its workers' output reaches us by the actors, with names in front.
            ray.init(
                address=address,
                namespace="paragone",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError, AssertionError) as exc:
            raise PlaceError(
                f"no Ray cluster could be joined at {address} ({_last_line(exc)}); start one with "
                f"`ray start --head`, run this on one of its nodes, or leave out --on ray"
            ) from exc
        return cls(ray.util.get_node_ip_address())

    def close(self) -> None:
        """Leaves the cluster; actors that are left end with that."""
        with contextlib.redirect_stdout(io.StringIO()):  # what it says twice has been shown
            ray.shutdown()

    def nodes(self) -> list[Node]:
        """The nodes that live.

        Raises:
            PlaceError: the cluster does not answer.
        """
        with _translated():
            entries = ray.nodes()
        return [
            Node(entry["NodeID"], entry["NodeManagerAddress"], entry["Resources"])
            for entry in entries
            if entry["Alive"]
        ]

    def free(self) -> Mapping[str, float]:
        """What nobody uses, of all nodes together; raises as `nodes` does."""
        with _translated():
            free: dict[str, float] = ray.available_resources()
        return free

    def survey(
        self, nodes: Sequence[Node], workers: Sequence[WorkerSpec], plans: Sequence[ProcessPlan]
    ) -> list[str]:
        """What nodes lack that workers need: our package, its extras, folders.

        Args:
            nodes: who is asked.
            workers: the workers' entries in the fleet file.
            plans: their processes.
        """
        ask = ray.remote(_missing_here)
        answers = [
            ask.options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
            ).remote(version("paragone"), list(workers), list(plans))
            for node in nodes
        ]
        problems: dict[str, list[str]] = {}
        for node, answer in zip(nodes, answers, strict=True):
            try:
                missing = ray.get(answer, timeout=_SURVEY_SECONDS)
            except ray.exceptions.GetTimeoutError:
                missing = [f"did not answer in {_SURVEY_SECONDS:g} s"]
            except (ray.exceptions.RayError, ImportError) as exc:
                why = _last_line(exc)
                missing = [f"cannot run paragone ({why}): install 'paragone[worker,ray]' there"]
            for text in missing:
                problems.setdefault(text, []).append(node.address)
        return [
            f"on {', '.join(dict.fromkeys(places))}: {text}" for text, places in problems.items()
        ]

    def start(self, tending: Tending, needs: Needs, *, spread: bool, is_reached: bool) -> Hosted:
        """Has an actor placed that runs a worker.

        Args:
            tending: what it runs.
            needs: what it takes of its node.
            spread: over nodes, as far as there are some; else nodes are filled first.
            is_reached: whether other machines reach it at its node's address; if not, it stays on
                nodes of this machine.

        Raises:
            PlaceError: the cluster does not answer, or does not take such needs.
        """
        amounts = dict(needs.amounts)
        options = {
            "num_gpus": amounts.pop(GPU, 0),
            "num_cpus": amounts.pop(CPU, 0),
            "memory": amounts.pop(MEMORY, None),
            # Every node of a machine has a resource of its address; there is enough for all.
            "resources": amounts if is_reached else {**amounts, f"node:{self.here}": 0.001},
            "max_restarts": -1,
            # A call that Ray repeats in silence would hide that the worker has moved.
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD" if spread else "DEFAULT",
        }
        with _translated():
            return Hosted(_actor_class().options(**options).remote(tending, is_reached=is_reached))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError, ValueError) as exc:
        raise PlaceError(f"the Ray cluster says: {_last_line(exc)}") from exc


def _knock(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        PlaceError: nobody answers there.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
    except (OSError, ValueError) as exc:
        raise PlaceError(
            f"no Ray cluster answers at {address} ({exc}); {_ADDRESS_VARIABLE} is the head's "
            f"host:port, as `ray start --head` prints it"
        ) from exc


@functools.cache
def _actor_class() -> Any:  # noqa: ANN401 - Ray makes the type at run time
    return ray.remote(WorkerHost)  # sent to the cluster once


def _missing_here(
    expected: str, workers: Sequence[WorkerSpec], plans: Sequence[ProcessPlan]
) -> list[str]:
    """Run on a node."""
    missing = find_missing(workers, plans)
    if (ours := version("paragone")) != expected:
        missing.append(f"has paragone {ours}, and the fleet is {expected}: install the same")
    return missing


def _last_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[-1].strip() if lines else type(exc).__name__
