"""What would keep a fleet from starting, found before anything is started."""

from __future__ import annotations

import errno
import importlib.metadata
import re
import socket
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import psutil

from controller.fleet.commands import ProcessKind, ProcessPlan
from controller.fleet.spec import FleetSpec
from controller.fleet.worker_spec import WorkerSpec

# The extra of our package that a kind of process needs.
_EXTRAS: Final = {ProcessKind.WORKER: "worker", ProcessKind.WEBUI: "webui"}

_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+).*;.*extra\s*==\s*['\"](?P<extra>\w+)['\"]")


def find_problems(
    spec: FleetSpec,
    plans: Iterable[ProcessPlan],
    *,
    ports_of_ours: Collection[tuple[str, int]] = (),
) -> list[str]:
    """Everything wrong at once, each with its way out; empty if the fleet can start.

    Args:
        spec: the fleet.
        plans: what is to be started of it.
        ports_of_ours: hosts and ports that the running fleet itself has; nobody looks at those.
    """
    plans = list(plans)
    taken = find_taken_ports(plans, ports_of_ours=ports_of_ours)
    return [*find_missing(spec.workers, plans), *taken]


def find_missing(workers: Iterable[WorkerSpec], plans: Iterable[ProcessPlan]) -> list[str]:
    """Packages and folders that this machine lacks.

    Args:
        workers: whose folders have to be here.
        plans: what is to be started here.
    """
    return [*_missing_packages(plans), *_missing_folders(workers)]


def find_taken_ports(
    plans: Iterable[ProcessPlan], *, ports_of_ours: Collection[tuple[str, int]] = ()
) -> list[str]:
    """Ports of this machine on which processes could not listen."""
    return [
        problem
        for plan in plans
        if (plan.host, plan.port) not in ports_of_ours
        and (problem := _port_problem(plan)) is not None
    ]


def _missing_packages(plans: Iterable[ProcessPlan]) -> list[str]:
    problems = []
    needed = _requirements_by_extra()
    for extra in dict.fromkeys(_EXTRAS[plan.kind] for plan in plans if plan.kind in _EXTRAS):
        missing = [name for name in needed.get(extra, []) if not _is_installed(name)]
        if missing:
            problems.append(
                f"{sys.executable} lacks {', '.join(missing)}, which the {extra} needs: "
                f"pip install 'paragone[{extra}]', or start with ./scripts/demo, which installs"
            )
    return problems


def _requirements_by_extra() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("paragone") or []:
        match = _REQUIREMENT.match(requirement)
        if match is not None:
            found.setdefault(match["extra"], []).append(match["name"])
    return found


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _missing_folders(workers: Iterable[WorkerSpec]) -> list[str]:
    problems = []
    for worker in workers:
        adapters = [(f"loras.{name}", path) for name, path in worker.loras.items()]
        base = [("model_base", worker.model_base)] if worker.model_base is not None else []
        for key, value in (("model_path", worker.model_path), *base, *adapters):
            # A hub name is for the worker to find; only absolute paths are folders here.
            if not value.startswith("/"):
                continue
            folder = Path(value)
            if not folder.is_dir():
                problems.append(f"{worker.name}: {key}: there is no folder {folder}")
            elif not any(folder.iterdir()):
                problems.append(f"{worker.name}: {key}: the folder {folder} is empty")
    return problems


def _port_problem(plan: ProcessPlan) -> str | None:
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((plan.host, plan.port))
            sock.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return (
                    f"{plan.name}: port {plan.port} on {plan.host} is taken by "
                    f"{_owner_of(plan.port)}; stop it, or give {plan.name} another port"
                )
            return f"{plan.name}: cannot listen on {plan.host}:{plan.port}: {exc.strerror}"
    return None


def _owner_of(port: int) -> str:
    """Which process listens on a port, as far as this user may know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.pid is not None:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except psutil.Error:
                break
            return f"process {connection.pid} ({command[:80]})"
    return "another process"
