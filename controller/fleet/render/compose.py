"""A `docker-compose.yml`, by the Compose specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from controller.fleet.commands import ProcessKind, ProcessPlan, plan_fleet
from controller.fleet.render.placing import (
    EVERY_INTERFACE,
    Folders,
    folders_of,
    from_here,
    gpu_count,
    label,
    placed_args,
    placed_env,
)
from controller.fleet.spec import FleetSpec
from controller.fleet.worker_spec import WorkerSpec

# The slim image has neither torch nor a checkpoint; the worker's has both extras' worth of torch.
_IMAGES: Final = {
    ProcessKind.CONTROLLER: ("paragone-slim", "docker/slim.Dockerfile"),
    ProcessKind.WEBUI: ("paragone-slim", "docker/slim.Dockerfile"),
    ProcessKind.WORKER: ("paragone-worker", "docker/worker.Dockerfile"),
}
_HEALTH: Final = {
    ProcessKind.CONTROLLER: "/health",
    ProcessKind.WEBUI: "/health",
    ProcessKind.WORKER: "/ready",
}


def render(spec: FleetSpec, header: str) -> dict[str, str]:
    """One file; its folders are relative to the current one, as it is to lie there."""
    plans = plan_fleet(spec, cores=1)
    folders = folders_of(plans)
    workers = {
        name: worker.replica(index)
        for worker in spec.workers
        for index, name in enumerate(p.name for p in plans if p.spec_name == worker.name)
    }
    services = {
        label(plan): _service(spec, plan, workers.get(plan.name), folders) for plan in plans
    }
    text = yaml.safe_dump({"services": services}, sort_keys=False, width=100)
    return {"docker-compose.yml": f"# {header}\n{text}"}


def _service(
    spec: FleetSpec, plan: ProcessPlan, worker: WorkerSpec | None, folders: Folders
) -> dict[str, Any]:
    image, dockerfile = _IMAGES[plan.kind]
    controller = f"http://controller:{spec.controller.port}"
    args = placed_args(
        plan,
        {
            "--host": EVERY_INTERFACE,
            "--controller-address": controller,
            "--controller-url": controller,
            "--worker-address": f"http://{label(plan)}:{plan.port}",
        },
        folders,
    )
    url = f"http://127.0.0.1:{plan.port}{_HEALTH[plan.kind]}"
    service: dict[str, Any] = {
        "image": image,
        "build": {"context": _context(dockerfile), "dockerfile": dockerfile},
        "command": [plan.kind.value, *(_literal(arg) for arg in args)],
        "restart": "unless-stopped",
        "stop_grace_period": f"{spec.stop_grace_seconds:g}s",
        "healthcheck": {
            "test": [
                "CMD",
                "python",
                "-c",
                f"import urllib.request as r; r.urlopen('{url}', timeout=4)",
            ],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            # A checkpoint of many gigabytes takes minutes.
            "start_period": "15m" if worker is not None else "30s",
        },
    }
    if env := {key: _literal(value) for key, value in placed_env(plan).items()}:
        service["environment"] = env
    if worker is None:
        # Of the host's loopback alone: behind it there are no keys.
        service["ports"] = [f"127.0.0.1:{plan.port}:{plan.port}"]
    else:
        service["profiles"] = ["workers", label(plan)]
        if mounted := folders.mounted_by(plan):
            service["volumes"] = [
                {"type": "bind", "source": from_here(here), "target": there, "read_only": True}
                for here, there in mounted
            ]
        service["deploy"] = _gpus(worker)
    return {key: value for key, value in service.items() if value != {}}


def _context(dockerfile: str) -> str:
    """The folder of our sources, where this runs from them; else whoever builds puts them here."""
    sources = Path(__file__).parents[3]
    if sources == Path.cwd() or not (sources / dockerfile).is_file():
        return "."
    return from_here(str(sources))


def _gpus(worker: WorkerSpec) -> dict[str, Any]:
    count = gpu_count(worker)
    if not count:
        return {}
    device: dict[str, Any] = {"driver": "nvidia", "capabilities": ["gpu"]}
    if worker.gpus:
        device["device_ids"] = [str(index) for index in worker.gpus]
    else:
        device["count"] = count
    return {"resources": {"reservations": {"devices": [device]}}}


def _literal(text: str) -> str:
    """Compose reads a dollar as the beginning of a variable."""
    return text.replace("$", "$$")
