"""Kubernetes manifests: a Deployment for each process, Services for what others dial."""

from __future__ import annotations

from typing import Any

import yaml

from controller.fleet.commands import ProcessKind, ProcessPlan
from controller.fleet.render.placing import (
    EVERY_INTERFACE,
    Folders,
    first_replicas,
    folders_of,
    gpu_count,
    label,
    placed_args,
    placed_env,
)
from controller.fleet.spec import FleetSpec
from controller.fleet.worker_spec import WorkerSpec

# A checkpoint of many gigabytes takes minutes: 180 looks, ten seconds apart.
_STARTUP = {"periodSeconds": 10, "failureThreshold": 180}


def render(spec: FleetSpec, header: str) -> dict[str, str]:
    """One file of several documents."""
    processes = first_replicas(spec)
    folders = folders_of(plan for plan, _worker in processes)
    documents: list[dict[str, Any]] = []
    for plan, worker in processes:
        documents.append(_deployment(spec, plan, worker, folders))
        if worker is None:
            documents.append(_service(plan))
    text = yaml.safe_dump_all(documents, sort_keys=False, width=100)
    return {"paragone.yaml": f"# {header}\n{text}"}


def _names(plan: ProcessPlan) -> dict[str, str]:
    # Not just `controller`: Kubernetes would set CONTROLLER_PORT and its like in every pod.
    return {"app.kubernetes.io/name": "paragone", "app.kubernetes.io/component": label(plan)}


def _object_name(plan: ProcessPlan) -> str:
    return f"vlm-{label(plan)}"


def _service(plan: ProcessPlan) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _object_name(plan), "labels": _names(plan)},
        "spec": {
            "selector": _names(plan),
            "ports": [{"name": "http", "port": plan.port, "targetPort": "http"}],
        },
    }


def _deployment(
    spec: FleetSpec, plan: ProcessPlan, worker: WorkerSpec | None, folders: Folders
) -> dict[str, Any]:
    mounted = folders.mounted_by(plan) if worker is not None else []
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": round(spec.stop_grace_seconds) + 5,
        "enableServiceLinks": False,
        "containers": [_container(spec, plan, worker, folders)],
    }
    if mounted:
        pod["volumes"] = [
            {"name": f"model-{index}", "hostPath": {"path": here}}
            for index, (here, _there) in enumerate(mounted)
        ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _object_name(plan), "labels": _names(plan)},
        "spec": {
            "replicas": worker.replicas if worker is not None else 1,
            "selector": {"matchLabels": _names(plan)},
            # Two of them at once would want twice the GPUs.
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": _names(plan)}, "spec": pod},
        },
    }


def _container(
    spec: FleetSpec, plan: ProcessPlan, worker: WorkerSpec | None, folders: Folders
) -> dict[str, Any]:
    controller = f"http://vlm-controller:{spec.controller.port}"
    args = placed_args(
        plan,
        {
            "--host": EVERY_INTERFACE,
            "--controller-address": controller,
            "--controller-url": controller,
            "--worker-address": f"http://$(POD_IP):{plan.port}",
        },
        folders,
    )
    env: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in placed_env(plan).items()]
    if worker is not None:
        own_address = {"fieldRef": {"fieldPath": "status.podIP"}}
        env.insert(0, {"name": "POD_IP", "valueFrom": own_address})
    ready = "/ready" if plan.kind is ProcessKind.WORKER else "/health"
    container: dict[str, Any] = {
        "name": plan.kind.value,
        "image": "paragone-worker" if worker is not None else "paragone-slim",
        "imagePullPolicy": "IfNotPresent",
        "args": [plan.kind.value, *args],
        "ports": [{"name": "http", "containerPort": plan.port}],
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, **_STARTUP},
        "readinessProbe": {"httpGet": {"path": ready, "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10},
    }
    if env:
        container["env"] = env
    if worker is not None and gpu_count(worker):
        container["resources"] = {"limits": {"nvidia.com/gpu": gpu_count(worker)}}
    if worker is not None and (mounted := folders.mounted_by(plan)):
        container["volumeMounts"] = [
            {"name": f"model-{index}", "mountPath": there, "readOnly": True}
            for index, (_here, there) in enumerate(mounted)
        ]
    return container
