"""What is said before anything is started."""

from __future__ import annotations

import importlib.metadata
import os
import socket
from pathlib import Path

import pytest

from controller.fleet import preflight
from controller.fleet.commands import plan_fleet
from controller.fleet.fleet_file import parse_fleet
from tests.ports import free_ports


def problems(text: str, folder: Path) -> list[str]:
    spec = parse_fleet(text, source="f.yaml", folder=folder)
    return preflight.find_problems(spec, plan_fleet(spec, cores=1))


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


def test_a_fleet_that_can_start_has_no_problems(model):
    controller, worker = free_ports(2)
    text = f"controller: {{port: {controller}}}\n"
    text += f"workers: [{{name: a, model_path: ./model, port: {worker}}}]"
    assert problems(text, model) == []


def test_a_taken_port_is_named_with_the_process_that_has_it(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, other = taken.getsockname()[1], free_ports(1)[0]
        found = problems(
            f"controller: {{port: {other}}}\n"
            f"workers: [{{name: a, model_path: ./model, port: {port}}}]",
            model,
        )
    assert len(found) == 1
    assert found[0].startswith(f"a: port {port} on 127.0.0.1 is taken by process {os.getpid()} (")
    assert found[0].endswith("stop it, or give a another port")


def test_an_address_of_another_machine_is_refused(model):
    one, two = free_ports(2)
    found = problems(
        f"controller: {{port: {one}}}\n"
        f"workers: [{{name: a, model_path: ./model, host: 192.0.2.1, port: {two}}}]",
        model,
    )
    assert found == [f"a: cannot listen on 192.0.2.1:{two}: Cannot assign requested address"]


def test_missing_and_empty_folders_are_named_with_their_key(model):
    one, two = free_ports(2)
    (model / "empty").mkdir()
    found = problems(
        f"controller: {{port: {one}}}\n"
        f"workers: [{{name: a, model_path: ./nowhere, model_base: ./empty, port: {two}, "
        "loras: {zh: ./gone, here: ./model}}]",
        model,
    )
    assert found == [
        f"a: model_path: there is no folder {model}/nowhere",
        f"a: model_base: the folder {model}/empty is empty",
        f"a: loras.zh: there is no folder {model}/gone",
    ]


def test_a_hub_name_is_no_missing_folder(model):
    one, two = free_ports(2)
    text = f"controller: {{port: {one}}}\n"
    assert problems(text + f"workers: [{{name: a, model_path: o/n, port: {two}}}]", model) == []


def test_missing_packages_are_named_with_the_extra_that_brings_them(model, monkeypatch):
    real = importlib.metadata.distribution

    def without_torch(name: str) -> importlib.metadata.Distribution:
        if name in {"torch", "peft"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_torch)
    one, two = free_ports(2)
    found = problems(
        f"controller: {{port: {one}}}\nworkers: [{{name: a, model_path: ./model, port: {two}}}]",
        model,
    )
    assert len(found) == 1
    assert " lacks peft, torch, which the worker needs: pip install 'paragone[worker]'" in found[0]


def test_everything_is_said_at_once(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, one = taken.getsockname()[1], free_ports(1)[0]
        found = problems(
            f"controller: {{port: {port}}}\n"
            f"workers: [{{name: a, model_path: ./nowhere, port: {one}}}]",
            model,
        )
    assert len(found) == 2
