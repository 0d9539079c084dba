"""A fleet of the demo's checkpoints that `paragone up` runs, and everything that belongs to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from relay_bench.relays import free_port

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "worker" / "demo"
START_SECONDS = 300.0
STOP_SECONDS = 60.0

CONTROLLER = "controller"
WEB = "web"

# Inherited by whatever a fleet starts, so that nothing of it can hide.
_TAG = "PARAGONE_KILL_BENCH"

_WORKERS: dict[str, list[dict[str, Any]]] = {
    "small": [{"name": "one", "model_path": "demo-llava"}],
    "whole": [
        {"name": "two", "model_path": "demo-llava", "replicas": 2},
        {
            "name": "adapters",
            "model_path": "demo-llava-zh-lora",
            "model_base": "demo-base",
            "loras": {"another": "demo-llava-zh-lora"},
        },
    ],
}
FLEETS = tuple(_WORKERS)


class Fleet:
    """A running fleet. Made by `running_fleet`.

    Args:
        spec: its fleet file's content.
        tag: what its processes have in their environment.
        supervisor: the process of `paragone up`.
        log: what that prints.
    """

    def __init__(
        self, spec: dict[str, Any], tag: str, supervisor: psutil.Process, log: Path
    ) -> None:
        self.models = [
            name for worker in spec["workers"] for name in (worker["name"], *worker["loras"])
        ]
        self._tag = tag
        self._supervisor = supervisor
        self._log = log
        self._ports = {CONTROLLER: spec["controller"]["port"], WEB: spec["web"]["port"]}
        for worker in spec["workers"]:
            for index in range(worker["replicas"]):
                name = worker["name"] + (f"#{index + 1}" if index else "")
                self._ports[name] = worker["port"] + index

    @property
    def names(self) -> list[str]:
        """Its processes, as the supervisor calls them."""
        return list(self._ports)

    @property
    def url(self) -> str:
        """The controller's address."""
        return self.address(CONTROLLER)

    def address(self, name: str) -> str:
        """Where a process answers."""
        return f"http://127.0.0.1:{self._ports[name]}"

    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run now."""
        names = {str(port): name for name, port in self._ports.items()}
        found = {}
        for child in self._supervisor.children():
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if "--port" in words and child.status() != psutil.STATUS_ZOMBIE:
                    found[names[words[words.index("--port") + 1]]] = child.pid
        return found

    async def is_ready(self, client: httpx.AsyncClient, name: str) -> bool:
        """Whether a process serves."""
        path = "/health" if name in {CONTROLLER, WEB} else "/ready"
        with contextlib.suppress(httpx.HTTPError):
            return (await client.get(self.address(name) + path)).is_success
        return False

    async def is_whole(self, client: httpx.AsyncClient) -> bool:
        """Whether all its processes serve, and the controller lists every model and worker."""
        if set(self.pids()) != set(self._ports):
            return False
        if not all([await self.is_ready(client, name) for name in self._ports]):
            return False
        try:
            listed = (await client.get(f"{self.url}/v1/models")).json()["data"]
            workers = (await client.get(f"{self.url}/fleet/workers")).json()["workers"]
        except httpx.HTTPError:
            return False
        ready = [worker for worker in workers if worker["status"]["state"] == "ready"]
        names = {entry["id"] for entry in listed}
        return names >= set(self.models) and len(ready) == len(self._ports) - 2

    def orphans(self) -> list[str]:
        """Processes of it that are no longer below the supervisor: command lines."""
        below = {self._supervisor.pid}
        with contextlib.suppress(psutil.NoSuchProcess):
            below |= {each.pid for each in self._supervisor.children(recursive=True)}
        return [line for pid, line in self._tagged().items() if pid not in below]

    def _tagged(self) -> dict[int, str]:
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_TAG) == self._tag:
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def last_lines(self) -> str:
        """The end of what the supervisor printed."""
        return "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-40:])


@asynccontextmanager
async def running_fleet(kind: str, folder: Path) -> AsyncIterator[Fleet]:
    """A fleet that is whole; it is stopped at the end.

    Args:
        kind: one of `FLEETS`.
        folder: where its files are written.

    Raises:
        RuntimeError: it did not start, or left processes behind when it was stopped.
    """
    spec = _spec(kind)
    path, log, state = folder / "fleet.yaml", folder / "supervisor.log", folder / "state"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    state.mkdir(mode=0o700)
    tag = uuid.uuid4().hex
    environ = {**os.environ, _TAG: tag, "PARAGONE_STATE_DIR": str(state)}
    command = [sys.executable, "-m", "controller.cli", "up", str(path), "--output", "plain"]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environ
        )
    fleet = Fleet(spec, tag, psutil.Process(process.pid), log)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            try:
                async with asyncio.timeout(START_SECONDS):
                    while not await fleet.is_whole(client):
                        await asyncio.sleep(0.2)
                        if process.returncode is not None:
                            break
            except TimeoutError:
                await _stop(process)
        if process.returncode is not None:
            raise RuntimeError(f"the fleet did not start:\n{fleet.last_lines()}")
        yield fleet
    finally:
        # Also where this is cancelled: a supervisor that is killed while it starts something can
        # leave that behind.
        await _stop(process)
    if left := fleet.orphans():
        raise RuntimeError("it was stopped and left:\n" + "\n".join(left))


async def _stop(process: asyncio.subprocess.Process) -> None:
    """With a SIGTERM; a TimeoutError if it did not follow, and had to be killed."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


def _spec(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "env": {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        "restart": {"first_delay_seconds": 0.2, "longest_delay_seconds": 2},
        "controller": {"port": free_port()},
        "web": {"port": free_port()},
        "workers": [],
    }
    for entry in _WORKERS[kind]:
        worker = {"replicas": 1, "loras": {}, "device": "cpu", **entry}
        for key in ("model_path", "model_base"):
            if key in worker:
                worker[key] = str(CHECKPOINTS / worker[key])
        worker["loras"] = {n: str(CHECKPOINTS / path) for n, path in worker["loras"].items()}
        worker["port"] = _free_ports_in_a_row(worker["replicas"])
        spec["workers"].append(worker)
    return spec


def _free_ports_in_a_row(count: int) -> int:
    """The first of so many free ports."""
    taken = {each.laddr.port for each in psutil.net_connections(kind="tcp") if each.laddr}
    while True:
        first = free_port()
        if not taken & set(range(first, first + count)):
            return first
