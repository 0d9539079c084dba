"""The plain command of each process: what the supervisor starts, and what people type."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from controller.fleet.certificates import certificate_of
from controller.fleet.needs import Needs
from controller.fleet.process_spec import CONTROLLER_NAME, WEB_NAME, ControllerSpec, WebSpec
from controller.fleet.sharing import sharers
from controller.fleet.spec import FleetSpec
from controller.fleet.worker_spec import WorkerSpec
from controller.protocol.fleet import Quantisation

_ADAPTER_FLAG: Final = "--lora"  # NAME=PATH


class ProcessKind(StrEnum):
    """What a process is; the value is the package that ``python -m`` runs."""

    CONTROLLER = "controller"
    WORKER = "worker"
    WEBUI = "webui"


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process as it is to be started.

    Args:
        name: what its log lines are prefixed with.
        kind: which of the packages it runs.
        args: what follows ``python -m <kind>``.
        env: variables beyond the inherited ones; the fleet file's own.
        default_env: variables that hold where neither the fleet file nor the environment says
            otherwise.
        host: address that it listens on.
        port: port that it listens on.
        url: where it is reached from this machine.
        spec_name: its worker's name in the fleet file, which replicas share.
        needs: what it asks of a cluster; nothing on this machine.
        is_forked: whether it is forked from a process that has imported what it needs.
    """

    name: str
    kind: ProcessKind
    args: tuple[str, ...]
    env: Mapping[str, str]
    default_env: Mapping[str, str]
    host: str
    port: int
    url: str
    spec_name: str = ""
    needs: Needs = field(default_factory=Needs)
    is_forked: bool = False

    def is_same_process(self, other: ProcessPlan) -> bool:
        """Whether a running process of the other plan can stay for this one.

        The defaults are left out: a share of the cores that one worker more makes smaller is no
        reason to load a checkpoint again.
        """
        return (
            self.name == other.name
            and self.kind is other.kind
            and self.args == other.args
            and self.env == other.env
            and self.needs == other.needs
        )

    @property
    def certificate(self) -> str | None:
        """The file of the certificate that it will show; None where it speaks plain HTTP."""
        return certificate_of(self.kind.value, self.args, self.env)

    def argv(self) -> list[str]:
        """The command, run by the interpreter that runs this."""
        return [sys.executable, "-m", self.kind.value, *self.args]

    def environ(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The whole environment: fleet file over inherited over our defaults."""
        return {**self.default_env, **inherited, **self.env}

    def shell_command(self) -> str:
        """The command as one types it; folders below the current one are written relative."""
        assignments = [f"{key}={shlex.quote(value)}" for key, value in self.env.items()]
        args = (before + _shorten(path) for before, path in paths_in(self.args))
        words = ["python", "-m", self.kind.value, *args]
        return " ".join([*assignments, *(shlex.quote(word) for word in words)])


def plan_fleet(spec: FleetSpec, *, cores: int) -> list[ProcessPlan]:
    """The processes of a fleet, in the order in which they are started.

    Args:
        spec: the fleet.
        cores: CPU cores of this machine, shared out among the workers that name no `threads`.
    """
    workers = [
        (worker.replica(index), index)
        for worker in spec.workers
        for index in range(worker.replicas)
    ]
    threads = max(1, cores // len(workers)) if workers else 1
    plans = [_controller_plan(spec, spec.controller)]
    shared_by = sharers([worker for worker, _ in workers])
    for (worker, index), count in zip(workers, shared_by, strict=True):
        shares = thread_env(worker.threads or threads) | memory_env(count)
        plans.append(_worker_plan(spec, worker, index, shares))
    if spec.web is not None:
        plans.append(_web_plan(spec, spec.web))
    return plans


def _controller_plan(spec: FleetSpec, controller: ControllerSpec) -> ProcessPlan:
    return ProcessPlan(
        name=CONTROLLER_NAME,
        kind=ProcessKind.CONTROLLER,
        args=("--host", controller.host, "--port", str(controller.port), *controller.args),
        env={**spec.env, **controller.env},
        default_env=_default_env(ProcessKind.CONTROLLER),
        host=controller.host,
        port=controller.port,
        url=_reached_at(spec, controller, ProcessKind.CONTROLLER),
    )


def _web_plan(spec: FleetSpec, web: WebSpec) -> ProcessPlan:
    flags = ["--host", web.host, "--port", str(web.port)]
    controller = _reached_at(spec, spec.controller, ProcessKind.CONTROLLER)
    flags += ["--controller-url", controller]
    return ProcessPlan(
        name=WEB_NAME,
        kind=ProcessKind.WEBUI,
        args=(*flags, *web.args),
        env={**spec.env, **web.env},
        default_env=_default_env(ProcessKind.WEBUI),
        host=web.host,
        port=web.port,
        url=_reached_at(spec, web, ProcessKind.WEBUI),
    )


def _worker_plan(
    spec: FleetSpec, worker: WorkerSpec, replica: int, shares: Mapping[str, str]
) -> ProcessPlan:
    flags = ["--model-path", worker.model_path]
    if worker.model_base is not None:
        flags += ["--model-base", worker.model_base]
    flags += ["--model-name", worker.name]
    for name, path in worker.loras.items():
        flags += [_ADAPTER_FLAG, f"{name}={path}"]
    if worker.quantisation is Quantisation.INT8:
        flags.append("--load-8bit")
    elif worker.quantisation is Quantisation.NF4:
        flags.append("--load-4bit")
    flags += ["--device", worker.device, "--host", worker.host, "--port", str(worker.port)]
    controller = _reached_at(spec, spec.controller, ProcessKind.CONTROLLER)
    address = _reached_at(spec, worker, ProcessKind.WORKER)
    flags += ["--controller-address", controller, "--worker-address", address]
    if worker.limits.concurrency is not None:
        flags += ["--limit-model-concurrency", str(worker.limits.concurrency)]
    if worker.limits.queue is not None:
        flags += ["--max-queue", str(worker.limits.queue)]
    if worker.threads is not None:
        flags += ["--threads", str(worker.threads)]
    flags += worker.loading.flags()
    env = {**spec.env, **worker.env}
    if worker.gpus is not None:
        # As nvidia-smi counts them; CUDA by itself would have the fastest first.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in worker.gpus)
    return ProcessPlan(
        # "#" is not allowed in names: no other worker can be called so.
        name=worker.name if replica == 0 else f"{worker.name}#{replica + 1}",
        kind=ProcessKind.WORKER,
        args=(*flags, *worker.args),
        env=env,
        default_env={**_default_env(ProcessKind.WORKER), **shares},
        host=worker.host,
        port=worker.port,
        url=address,
        spec_name=worker.name,
    )


def _reached_at(
    spec: FleetSpec, process: ControllerSpec | WebSpec | WorkerSpec, kind: ProcessKind
) -> str:
    """Where this machine's processes reach one: by HTTPS where it will show a certificate."""
    certificate = certificate_of(kind.value, process.args, {**spec.env, **process.env})
    return process.url if certificate is None else process.url.replace("http", "https", 1)


def with_values(args: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """A command's words with other values for some of its flags.

    Args:
        args: the words.
        values: by flag; flags that are not there are not added.
    """
    before = ("", *args)
    return tuple(values.get(flag, word) for flag, word in zip(before, args, strict=False))


def thread_env(threads: int) -> dict[str, str]:
    """Without a limit each worker takes every core, and four of them wait for each other."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def memory_env(sharers: int) -> dict[str, str]:
    """Without its share each worker plans its caches as if a device were all its own."""
    return {"PARAGONE_WORKER_MEMORY_SHARE": f"{1 / sharers:.4g}"}


def paths_in(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word of a command as what stands before its path, and its path or the word itself."""
    for flag, word in zip(("", *args), args, strict=False):
        name, equals, path = word.partition("=")
        yield (name + equals, path) if flag == _ADAPTER_FLAG else ("", word)


def _default_env(kind: ProcessKind) -> dict[str, str]:
    env = {
        "PYTHONUNBUFFERED": "1",  # a line that is printed is a line that is seen
        # `python -m worker` would take a folder `worker` of the current directory for ours.
        "PYTHONSAFEPATH": "1",
        # Read by people, behind our prefix.
        f"PARAGONE_{kind.name}_LOG_FORMAT": "pretty",
    }
    if kind is ProcessKind.WORKER:
        env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    if kind is ProcessKind.WEBUI:
        env |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return env


def _shorten(argument: str) -> str:
    path = Path(argument)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    return argument
