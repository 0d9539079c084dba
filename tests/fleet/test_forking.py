"""Which workers of a fleet are forked from one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from controller.fleet.commands import plan_fleet
from controller.fleet.fleet_file import parse_fleet
from controller.fleet.forking import with_forks
from controller.fleet.place import ThisMachine

TWO = """
workers:
  - {name: one, model_path: /m, device: cpu, port: 1}
  - {name: two, model_path: /m, device: cpu, port: 2%s}
"""


def forked(
    text: str, *, inherited: Mapping[str, str] | None = None, has_gpus: bool = False
) -> set[str]:
    spec = parse_fleet(text, source="fleet.yaml", folder=Path("/"))
    plans = with_forks(plan_fleet(spec, cores=8), inherited=inherited or {}, has_gpus=has_gpus)
    return {plan.name for plan in plans if plan.is_forked}


def test_workers_of_one_environment_are_forked_and_the_controller_and_the_page_are_not():
    assert forked(TWO % "" + "web: {}\n") == {"one", "two"}


def test_replicas_are_forked_too():
    text = "workers: [{name: one, model_path: /m, device: cpu, port: 1, replicas: 2}]"
    assert forked(text) == {"one", "one#2"}


def test_a_worker_that_is_alone_starts_by_itself():
    assert forked("workers: [{name: one, model_path: /m, device: cpu, port: 1}]") == set()


@pytest.mark.parametrize("own", ["env: {HF_HUB_OFFLINE: 1}", "threads: 3", "gpus: []"])
def test_an_environment_of_its_own_is_read_by_a_process_of_its_own(own: str):
    assert forked(TWO % f", {own}") == set()


def test_a_thread_count_that_the_environment_gives_all_of_them_parts_nobody():
    # It goes over the fleet's own share of the cores; `threads` is a flag then.
    inherited = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert forked(TWO % ", threads: 3", inherited=inherited) == {"one", "two"}


def test_the_workers_own_settings_may_differ():
    assert forked(TWO % ", env: {PARAGONE_WORKER_MAX_QUEUE: 3}") == {"one", "two"}


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD"])
def test_another_interpreter_is_started_for_those_whose_file_asks_for_one(name: str):
    assert forked(TWO % "" + f"env: {{{name}: x}}\n") == set()


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1", "mps"])
def test_where_there_are_gpus_only_workers_that_use_none_are_forked(device: str):
    text = TWO % ""
    for port, name in ((3, "three"), (4, "four")):
        text += f"  - {{name: {name}, model_path: /m, port: {port}, device: {device}}}\n"
    assert forked(text, has_gpus=True) == {"one", "two"}
    without = {"one", "two", "three", "four"} if device == "auto" else {"one", "two"}
    assert forked(text, has_gpus=False) == without


@pytest.mark.parametrize("args", ["[--device, cuda]", "[--device=cuda]", "[--dev, cuda]"])
def test_the_last_word_on_the_device_is_the_further_flags(args: str):
    assert forked(TWO % f", args: {args}") == set()


def test_a_map_of_devices_may_name_gpus():
    text = TWO % ", loading: {device_map: auto}"
    assert forked(text, has_gpus=True) == set()
    assert forked(text, has_gpus=False) == {"one", "two"}


@pytest.mark.parametrize(("switch", "are_forked"), [("", True), ("fork_workers: false\n", False)])
def test_the_fleet_file_can_switch_it_off(switch: str, are_forked: bool):
    spec = parse_fleet(TWO % "" + switch, source="fleet.yaml", folder=Path("/"))
    assert any(plan.is_forked for plan in ThisMachine().plans(spec)) is are_forked
