"""Whether workers fit into memory together, from what `paragone inspect` says of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.fleet import memory
from controller.fleet.commands import ProcessPlan, plan_fleet
from controller.fleet.fleet_file import parse_fleet

GIB = 2**30


def inspected(device: str, *, least: int, weights: int, free: int, held: str = "8bit") -> str:
    return json.dumps(
        {
            "card": {"quantisation": held, "dtype": "float16"},
            "memory": [{"held": held, "weights": weights * GIB, "least": least * GIB}],
            "devices": [{"device": device, "free": free * GIB}],
        }
    )


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """What inspecting a worker says, by name; the program itself is tested with the worker."""
    said: dict[str, str] = {}

    def inspect(plan: ProcessPlan) -> object:
        return memory._Inspected.model_validate_json(said[plan.name])

    monkeypatch.setattr(memory, "_inspect", inspect)
    monkeypatch.setattr(memory, "_are_small", lambda workers: False)
    return said


def problems(*workers: str) -> list[str]:
    spec = parse_fleet(f"workers: [{', '.join(workers)}]", source="f.yaml", folder=Path("/"))
    return memory.memory_problems(spec, plan_fleet(spec, cores=1))


A = "{name: a, model_path: /m, port: 1, gpus: [3]}"
B = "{name: b, model_path: /m, port: 2, gpus: [3]}"


def test_workers_that_fit_alone_and_not_together_are_named_with_their_gpu(answers):
    answers["a"] = inspected("cuda:0", least=9, weights=8, free=16)
    answers["b"] = inspected("cuda:0", least=8, weights=7, free=16)
    assert problems(A) == []
    (problem,) = problems(A, B)
    assert problem.startswith(
        "GPU 3: 17.00 GiB are needed and 16.00 GiB are free (a 9.00 GiB, b 8.00 GiB)"
    )


def test_workers_on_different_gpus_do_not_add_up(answers):
    answers["a"] = answers["b"] = inspected("cuda:0", least=9, weights=8, free=16)
    assert problems(A, B.replace("[3]", "[2]")) == []


def test_workers_on_the_cpu_share_the_weights_that_they_map(answers):
    cpu = "{name: %s, model_path: /m, port: %d, device: cpu%s}"
    answers["a"] = answers["b"] = inspected("cpu", least=9, weights=8, free=12)
    assert problems(cpu % ("a", 1, ""), cpu % ("b", 2, "")) == []
    mapped = ", loading: {mmap: false}"
    (problem,) = problems(cpu % ("a", 1, mapped), cpu % ("b", 2, mapped))
    assert problem.startswith("this machine's memory: 18.00 GiB are needed")


def test_adapters_take_memory_of_their_own(answers, tmp_path):
    (tmp_path / "adapter.bin").write_bytes(bytes(1024))
    answers["a"] = inspected("cuda:0", least=16, weights=8, free=16)
    assert problems(A) == []
    (problem,) = problems(A.replace("port: 1", f"port: 1, loras: {{zh: {tmp_path}}}"))
    assert problem.startswith("GPU 3: 16.00 GiB are needed")


def test_the_real_program_is_asked_with_the_workers_own_flags():
    model = Path(__file__).parents[2] / "worker" / "demo" / "demo-llava"
    text = f"{{name: a, model_path: {model}, port: 1, device: cpu, quantisation: 4bit, "
    text += f"loras: {{zh: {model}-zh-lora}}}}"
    spec = parse_fleet(f"workers: [{text}]", source="f.yaml", folder=Path("/"))
    plan = next(p for p in plan_fleet(spec, cores=1) if p.name == "a")
    answer = memory._inspect(plan)
    assert isinstance(answer, memory._Inspected), answer
    needed = answer.needed()
    assert needed is not None
    assert needed.held == "4bit"
    assert needed.least > needed.weights > 0
    assert [device.device for device in answer.devices] == ["cpu"]
