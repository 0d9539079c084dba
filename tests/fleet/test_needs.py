"""What workers ask of a cluster, and how their plans are fitted to a node; without Ray."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller.fleet.commands import plan_fleet
from controller.fleet.fleet_file import parse_fleet
from controller.fleet.needs import Needs, Node, Wait, gpus_shared, never_met, waits_for
from controller.fleet.on_ray.fitting import (
    for_cluster,
    for_node,
    needs_of,
    reached_at,
    with_free_port,
)

GIB = 2**30


def one_worker(text):
    spec = parse_fleet(
        f"workers: [{{name: w, model_path: /m, port: 31002, {text}}}]",
        source="f",
        folder=Path("/"),
    )
    return spec, spec.workers[0]


def placed(text, environ=None):
    spec, worker = one_worker(text)
    plan = next(plan for plan in plan_fleet(spec, cores=8) if plan.spec_name)
    return for_cluster(
        plan,
        worker,
        needs=needs_of(worker, cluster_has_gpus=True),
        controller_url="http://10.0.0.1:21001",
        environ=environ or {},
    )


def value(plan, flag):
    return plan.args[plan.args.index(flag) + 1]


@pytest.mark.parametrize(
    ("text", "has_gpus", "amounts"),
    [
        ("device: auto", True, {"GPU": 1, "CPU": 1}),
        ("device: auto", False, {"CPU": 1}),
        ("device: cuda", False, {"GPU": 1, "CPU": 1}),
        ("device: cpu, threads: 4", True, {"CPU": 4}),
        ("gpus: [2, 3]", True, {"GPU": 2, "CPU": 1}),
        ("gpus: []", True, {"CPU": 1}),
        ("gpus: [0, 1, 2, 3], replicas: 2", True, {"GPU": 2, "CPU": 1}),
        ("gpus: [0, 1], replicas: 3", True, {"GPU": 0.5, "CPU": 1}),
        ("loading: {num_gpus: 4}", True, {"GPU": 4, "CPU": 1}),
        (
            "device: cpu, ray: {cpus: 0.5, memory: 24GiB, resources: {big: 1}}",
            True,
            {"CPU": 0.5, "memory": 24 * GIB, "big": 1},
        ),
    ],
)
def test_a_worker_asks_for_what_it_would_have_on_one_machine(text, has_gpus, amounts):
    _, worker = one_worker(text)
    assert needs_of(worker, cluster_has_gpus=has_gpus).amounts == amounts


def test_replicas_beyond_the_gpus_share_them_as_on_one_machine():
    assert [gpus_shared(2, replicas) for replicas in (1, 2, 3, 4, 5)] == [2, 1, 0.5, 0.5, 1 / 3]
    assert gpus_shared(0, 2) == 0


NODES = [
    Node("a", "10.0.0.1", {"CPU": 8, "memory": 16 * GIB}),
    Node("b", "10.0.0.2", {"CPU": 2, "GPU": 2, "memory": 64 * GIB}),
]


def test_needs_that_no_node_can_ever_meet_are_told_with_the_most_there_is():
    assert never_met(Needs({"GPU": 2, "CPU": 1}), NODES) is None
    assert (
        never_met(Needs({"GPU": 4}), NODES)
        == "needs 4 GPU on one node, and no node has more than 2 GPU"
    )
    assert (
        never_met(Needs({"TPU": 1}), NODES)
        == "needs 1 TPU on one node, and no node has more than none"
    )
    # Each node has enough of one, and none of both.
    assert (
        never_met(Needs({"GPU": 1, "CPU": 4}), NODES)
        == "needs 1 GPU and 4 CPU on one node, and no node has all of it"
    )


def test_what_a_worker_waits_for_is_what_is_not_free():
    free = {"CPU": 9, "GPU": 0, "memory": 80 * GIB}
    both = [Needs({"GPU": 1, "CPU": 1})] * 2
    assert waits_for(Needs({"GPU": 1}), NODES, free, both) == Wait(
        "waits for a place: it needs 1 GPU; 0 GPU of 2 GPU are free in the cluster"
    )
    assert waits_for(Needs({"CPU": 1}), NODES, free) is None
    assert waits_for(Needs({"CPU": 10}), NODES, free).cause.startswith(
        "waits for a node: it needs 10 CPU"
    )


def test_what_is_not_free_and_nobodys_may_be_kept_for_the_very_process_that_waits():
    needs, free = Needs({"GPU": 1, "CPU": 1}), {"CPU": 8, "GPU": 0}
    one = Needs({"GPU": 1, "CPU": 1})
    assert waits_for(needs, NODES, free, [one]) == Wait(
        "waits for a place, or for its process to start: it needs 1 GPU; 0 GPU of 2 GPU are free "
        "in the cluster",
        may_have_a_place=True,
    )
    assert not waits_for(needs, NODES, free, [one, one]).may_have_a_place
    # It would have all of what it needs, or nothing of it.
    assert not waits_for(needs, NODES, {"CPU": 10, "GPU": 0}, [one]).may_have_a_place


def test_an_explicit_amount_of_memory_is_not_estimated_over():
    assert Needs({"memory": 5}).also("memory", 7).amounts == {"memory": 5}
    assert Needs({"CPU": 1}).also("memory", 7).amounts == {"memory": 7, "CPU": 1}


def test_for_a_cluster_the_worker_is_told_where_nodes_reach_the_controller():
    plan = placed("device: cpu, threads: 3")
    assert value(plan, "--controller-address") == "http://10.0.0.1:21001"
    assert plan.default_env["OMP_NUM_THREADS"] == "3"
    assert plan.default_env["PARAGONE_WORKER_MEMORY_SHARE"] == "1"


def test_indices_of_this_machines_gpus_are_not_carried_to_a_node():
    plan = placed("gpus: [6, 7]")
    assert not {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"} & plan.env.keys()
    assert value(placed("device: 'cuda:3'"), "--device") == "cuda"
    node = for_node(plan, address=None, gpus=["1", "4"])
    assert node.env["CUDA_VISIBLE_DEVICES"] == "1,4"
    # Without a GPU of its own it must not see those of others.
    assert for_node(placed("device: cpu"), address=None, gpus=[]).env["CUDA_VISIBLE_DEVICES"] == ""


def test_a_workers_own_settings_follow_it_and_the_file_beats_the_shell():
    environ = {
        "PARAGONE_WORKER_FLEET_TOKEN": "shell",
        "PARAGONE_WORKER_LOG_LEVEL": "debug",
        "HOME": "/home/somebody",
    }
    plan = placed("env: {PARAGONE_WORKER_LOG_LEVEL: info}", environ)
    assert plan.env == {
        "PARAGONE_WORKER_FLEET_TOKEN": "shell",
        "PARAGONE_WORKER_LOG_LEVEL": "info",
    }


@pytest.mark.parametrize(
    ("host", "listens_on"), [("127.0.0.1", "10.0.0.7"), ("0.0.0.0", "0.0.0.0")]
)
def test_a_worker_that_others_reach_is_known_by_its_nodes_address(host, listens_on):
    plan = for_node(placed(f"host: {host}"), address="10.0.0.7", gpus=[])
    assert (plan.host, value(plan, "--host")) == (listens_on, listens_on)
    assert plan.url == value(plan, "--worker-address") == "http://10.0.0.7:31002"


def test_scheme_and_port_stay_with_another_address():
    assert reached_at("https://127.0.0.1:5", "fd00::1") == "https://[fd00::1]:5"
    assert reached_at("http://[::1]:5", "10.0.0.1") == "http://10.0.0.1:5"


def test_a_taken_port_is_replaced_by_a_free_one_and_a_free_one_is_kept():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec, _ = one_worker("device: cpu")
        moved = spec.model_copy(
            update={"workers": (spec.workers[0].model_copy(update={"port": port}),)}
        )
        plan = plan_fleet(moved, cores=1)[1]
        other = with_free_port(plan)
    assert other.port != port
    assert value(other, "--port") == str(other.port)
    assert other.url == value(other, "--worker-address") == f"http://127.0.0.1:{other.port}"
    assert with_free_port(plan) == plan
