"""A worker's plan for a cluster: what it asks for, and its addresses on the node it was put on."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from controller.fleet.commands import ProcessPlan, memory_env, thread_env, with_values
from controller.fleet.needs import CPU, GPU, MEMORY, Needs, gpus_shared
from controller.fleet.render.placing import placed_env
from controller.fleet.worker_spec import WorkerSpec

EVERY_INTERFACE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - told apart, not bound

# A worker's own settings follow it from the shell of `paragone up`; the rest is the node's.
_FORWARDED_PREFIX: Final = "PARAGONE_WORKER_"


def needs_of(worker: WorkerSpec, *, cluster_has_gpus: bool) -> Needs:
    """What one replica asks for: as many GPUs as it would get on one machine.

    Args:
        worker: its entry in the fleet file.
        cluster_has_gpus: whether `device: auto` is a GPU.
    """
    amounts = {
        GPU: _gpus(worker, cluster_has_gpus=cluster_has_gpus),
        CPU: worker.ray.cpus or float(worker.threads or 1),
        MEMORY: float(worker.ray.memory or 0),
        **worker.ray.resources,
    }
    return Needs({name: amount for name, amount in amounts.items() if amount})


def _gpus(worker: WorkerSpec, *, cluster_has_gpus: bool) -> float:
    if worker.device in {"cpu", "mps"}:
        return 0
    if worker.gpus is not None:
        return gpus_shared(len(worker.gpus), worker.replicas)
    if worker.device == "auto" and not cluster_has_gpus:
        return 0
    return worker.loading.num_gpus or 1


def for_cluster(
    plan: ProcessPlan,
    worker: WorkerSpec,
    *,
    needs: Needs,
    controller_url: str,
    environ: Mapping[str, str],
) -> ProcessPlan:
    """The plan without what only this machine knows.

    Args:
        plan: the worker's on this machine.
        worker: its entry in the fleet file.
        needs: what it asks of the cluster.
        controller_url: where the nodes reach the controller.
        environ: of `paragone up`.
    """
    values = {"--controller-address": controller_url}
    if worker.gpus is None and worker.device.startswith("cuda:"):
        values["--device"] = "cuda"  # the one that Ray gives it; its index there is 0
    forwarded = {key: environ[key] for key in environ if key.startswith(_FORWARDED_PREFIX)}
    threads = worker.threads or max(1, int(needs.amounts.get(CPU, 1)))
    return dataclasses.replace(
        plan,
        args=with_values(plan.args, values),
        env={**forwarded, **placed_env(plan)},
        # Who else is on its node, nobody knows yet; Ray gives it GPUs of its own.
        default_env={**plan.default_env, **thread_env(threads), **memory_env(1)},
        needs=needs,
    )


def for_node(plan: ProcessPlan, *, address: str | None, gpus: Sequence[str]) -> ProcessPlan:
    """The plan on the node that it was put on.

    Args:
        plan: the worker's, as `for_cluster` made it.
        address: the node's, for workers that others have to reach; None where all is one machine.
        gpus: the ids of the GPUs that Ray gave it, as `CUDA_VISIBLE_DEVICES` has them.
    """
    env = {**plan.env, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    if address is None:
        return dataclasses.replace(plan, env=env)
    host = plan.host if plan.host in EVERY_INTERFACE else address
    url = reached_at(plan.url, address)
    args = with_values(plan.args, {"--host": host, "--worker-address": url})
    return dataclasses.replace(plan, env=env, args=args, host=host, url=url)


def reached_at(url: str, address: str) -> str:
    """A process's URL with the address of a machine in it; scheme and port stay."""
    scheme, _, rest = url.partition("://")
    port = rest.rpartition(":")[2]
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def with_free_port(plan: ProcessPlan) -> ProcessPlan:
    """The plan with its own port where that is free here, else with one that is."""
    port = _free_port(plan.host, plan.port)
    url = f"{plan.url.rpartition(':')[0]}:{port}"
    args = with_values(plan.args, {"--port": str(port), "--worker-address": url})
    return dataclasses.replace(plan, args=args, port=port, url=url)


def _free_port(host: str, wanted: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(1)
            return int(sock.getsockname()[1])
    return wanted  # the worker says itself why it cannot listen there
