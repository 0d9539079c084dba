"""Runs the README's commands against the demo fleet, with other ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from controller.fleet.fleet_file import parse_fleet
from tests import documents
from tests.demo_fleet import DEMO, DemoFleet
from tests.documents import ROOT, Block, blocks_in
from tests.fleet.running import eventually
from tests.ports import free_ports

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_in("README.md")
# The ports of the README's processes that are started by hand.
_BY_HAND = ("10000", "40000", "40001", "7861")


def blocks(start: str, end: str) -> list[Block]:
    """The blocks between two headings that are run."""
    section = README.split(f"\n## {start}\n", 1)[1].split(f"\n## {end}\n", 1)[0]
    return [block for block in BLOCKS if block.code in section and block.why_not is None]


def run(block: Block, ports: dict[str, str], timeout: float = 120) -> str:
    """What a block prints; an error if it fails."""
    code = re.sub(r"\b\d{4,5}\b", lambda match: ports.get(match[0], match[0]), block.code)
    result = documents.run(Block(block.language, code), environment(ports), timeout=timeout)
    assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def environment(ports: dict[str, str]) -> dict[str, str]:
    url = f"http://127.0.0.1:{ports.get('21001', '21001')}"
    return documents.environment({"PARAGONE_CONTROLLER_URL": url})


def ports_of(fleet: DemoFleet) -> dict[str, str]:
    """The demo's ports, and where this fleet has them."""
    documented = re.findall(r"port: (\d+)", DEMO.read_text())
    return dict(zip(documented, map(str, fleet.ports.values()), strict=True))


def test_every_block_is_of_a_language_that_the_tests_know():
    assert {block.language for block in BLOCKS} == {"bash", "python", "yaml"}


def test_the_page_is_asked_as_described_with_curl(demo_fleet: DemoFleet) -> None:
    models, answer = (
        run(b, ports_of(demo_fleet)) for b in blocks("Ask with curl", "Ask with the OpenAI SDK")
    )
    for name in demo_fleet.models:
        assert f'"{name}"' in models
    assert '"finish_reason":"stop"' in answer


def test_the_sdk_streams_an_answer_of_each_model(demo_fleet: DemoFleet) -> None:
    (block,) = blocks("Ask with the OpenAI SDK", "Look at a checkpoint before it is loaded")
    lines = [line for line in run(block, ports_of(demo_fleet)).splitlines() if line]
    assert [line.split(": ")[0] for line in lines] == sorted(demo_fleet.models)
    assert all(len(line.split(": ", 1)[1]) > 5 for line in lines)


def test_status_shows_the_demo(demo_fleet: DemoFleet) -> None:
    (block,) = blocks("See what runs", "Describe your own fleet")
    output = run(block, ports_of(demo_fleet))
    for name in demo_fleet.models:
        assert len(re.findall(rf"^{name} +ready", output, re.MULTILINE)) == 1
        assert f'"name":"{name}"' in output


def test_a_checkpoint_is_looked_at_before_it_is_loaded() -> None:
    (inspect,) = blocks("Look at a checkpoint before it is loaded", "Start the processes by hand")
    said = run(inspect, {})
    assert "llava-lora" in said
    assert "it fits" in said


def test_the_printed_commands_are_six(demo_fleet: DemoFleet) -> None:
    (block,) = [
        b
        for b in blocks("Describe your own fleet", "Kill something, and watch")
        if b.language == "bash"
    ]
    assert run(block, ports_of(demo_fleet)).count("python -m ") == 6


def test_the_fleet_file_of_the_readme_is_one() -> None:
    (block,) = [block for block in BLOCKS if block.language == "yaml"]
    spec = parse_fleet(block.code, source="README.md", folder=ROOT)
    assert [worker.name for worker in spec.workers] == [
        "llava-v1.5-7b",
        "llava-v1.5-7b-4bit",
        "my-lora",
    ]


def test_a_worker_that_is_killed_as_described_comes_back(demo_fleet: DemoFleet) -> None:
    (block,) = blocks("Kill something, and watch", "Limits, today")
    name = "demo-llava-8bit"
    assert f"--model-name {name}" in block.code
    old = demo_fleet.pids[name]
    # The pattern would also find workers of a demo that somebody runs on this machine.
    mine = Block("bash", block.code.replace("pgrep", f"pgrep -P {demo_fleet.supervisor_pid}"), None)
    run(mine, ports_of(demo_fleet))
    eventually(lambda: name not in demo_fleet.listed(), what="it is off the list")
    demo_fleet.wait_for_process(name, other_than=old)
    demo_fleet.wait_until_complete()


def test_processes_that_are_started_by_hand_find_each_other() -> None:
    ports = dict(zip(_BY_HAND, map(str, free_ports(len(_BY_HAND))), strict=True))
    all_blocks = blocks("Start the processes by hand", "See what runs")
    code = "\n".join(block.code for block in all_blocks[:2])
    started = subprocess.Popen(
        ["bash", "-c", re.sub(r"\b\d{4,5}\b", lambda m: ports.get(m[0], m[0]), code) + "\nwait"],
        cwd=ROOT,
        env=environment(ports),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        run(all_blocks[2], ports, timeout=180)
        wanted = {"demo-llava", "demo-llava-zh-lora"}
        deadline = time.monotonic() + 360
        while time.monotonic() < deadline:
            table = run(all_blocks[2], ports, timeout=60)
            ready = set(re.findall(r"^(\S+) +ready", table, re.MULTILINE))
            if ready == wanted:
                break
            time.sleep(0.5)
        assert ready == wanted
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
