"""The process that runs a worker on its node, started as the actor starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from controller.fleet.commands import plan_fleet
from controller.fleet.fleet_file import load_fleet_file
from controller.fleet.on_ray.messages import Order, Tending
from controller.fleet.restart import RestartRule
from tests.fleet.running import eventually, is_running

RULE = RestartRule(
    first_delay_seconds=0.05,
    factor=1,
    longest_delay_seconds=1,
    stable_seconds=10,
    max_failed_starts=2,
)


class RunningTender:
    def __init__(self, fleet_file: Path, grace_seconds: float = 60) -> None:
        plan = plan_fleet(load_fleet_file(fleet_file), cores=1)[1]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "controller.fleet.on_ray.tender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.told = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.tell(Tending(plan=plan, rule=RULE, grace_seconds=grace_seconds))

    def _read(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self.told.append(json.loads(line))
        self._process.wait()

    def tell(self, message) -> None:
        self._process.stdin.write(message.model_dump_json().encode() + b"\n")

    def hang_up(self) -> None:
        self._process.stdin.close()

    @property
    def condition(self) -> dict:
        return next((t for t in reversed(self.told) if "state" in t), {"state": "", "pid": None})

    def lines(self, kind: str = "line") -> list[str]:
        return [told["text"] for told in list(self.told) if told.get("kind") == kind]

    def wait_for_worker(self) -> int:
        eventually(lambda: self.condition["pid"], what="a worker")
        return self.condition["pid"]

    def wait_for_line(self, text: str) -> str:
        eventually(lambda: any(text in line for line in self.lines()), what=text)
        return next(line for line in self.lines() if text in line)

    def wait_for_end(self) -> None:
        self.reader.join(60)
        assert not self.reader.is_alive()


@pytest.fixture
def start(write_fleet):
    tenders = []

    def run(*args: str, **options) -> RunningTender:
        tenders.append(RunningTender(write_fleet([*args]), **options))
        return tenders[-1]

    yield run
    for tender in tenders:
        tender.hang_up()
        tender.wait_for_end()


def grandchild_of(tender: RunningTender) -> int:
    return int(tender.wait_for_line("grandchild").split()[1])


def test_it_leaves_the_family_of_the_process_that_started_it(start):
    tender = start()
    worker = psutil.Process(tender.wait_for_worker())
    family = {child.pid for child in psutil.Process().children(recursive=True)}
    assert worker.pid not in family
    assert worker.ppid() not in family


def test_the_end_of_its_input_stops_the_worker_and_all_that_that_started(start):
    tender = start("--grandchild")
    grandchild = grandchild_of(tender)
    worker = tender.wait_for_worker()
    tender.hang_up()
    tender.wait_for_end()
    assert not is_running(worker)
    eventually(lambda: not is_running(grandchild), what="the grandchild's end")
    assert tender.condition["state"] == "stopped"
    assert not tender.lines("alarm"), "it was asked, and not killed"


def test_a_worker_that_does_not_stop_within_the_grace_is_killed(start):
    tender = start("--ignore-sigterm", "--grandchild", grace_seconds=0.2)
    grandchild = grandchild_of(tender)
    worker = tender.wait_for_worker()
    tender.hang_up()
    tender.wait_for_end()
    assert tender.lines("alarm") == ["was killed: it had not stopped after 0.2 s"]
    assert not is_running(worker)
    eventually(lambda: not is_running(grandchild), what="the grandchild's end")


def test_an_order_to_hurry_does_not_wait_for_the_grace(start):
    tender = start("--ignore-sigterm", "--grandchild", grace_seconds=1000)
    grandchild_of(tender)
    worker = tender.wait_for_worker()
    tender.tell(Order(word="hurry"))
    tender.wait_for_end()
    assert not is_running(worker)


def test_if_it_is_killed_its_guard_kills_the_worker(start):
    tender = start("--grandchild")
    grandchild = grandchild_of(tender)
    worker = tender.wait_for_worker()
    os.kill(psutil.Process(worker).ppid(), signal.SIGKILL)
    for pid in (worker, grandchild):
        eventually(lambda pid=pid: not is_running(pid), what="no orphan")


def test_a_killed_worker_comes_back_and_one_that_never_serves_is_given_up(start):
    tender = start("--say", "up")
    tender.wait_for_line("up")
    worker = tender.wait_for_worker()
    tender.tell(Order(word="ready", pid=worker))
    eventually(lambda: tender.condition["state"] == "ready", what="ready")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: tender.condition["pid"] not in {None, worker}, what="another worker")
    assert tender.condition["restarts"] == 1

    hopeless = start("--exit-with", "3", "--say", "I cannot")
    hopeless.wait_for_end()
    assert hopeless.condition["state"] == "given up"
    assert "2 starts in a row" in hopeless.condition["reason"]
    assert hopeless.lines("repeat")[-1] == "  I cannot"
