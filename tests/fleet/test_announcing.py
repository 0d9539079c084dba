"""What the supervisor announces of a fleet whose processes wait for a place; all is fake but it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from controller.fleet.commands import ProcessKind
from controller.fleet.log_book import LogBook
from controller.fleet.restart import ProcessState, RestartRule
from controller.fleet.supervisor import Supervisor
from controller.protocol.fleet import WorkerState, WorkerStatus
from tests.fleet.fleet_files import plans_of_one_worker
from tests.waiting import until

pytestmark = pytest.mark.anyio

PLANS = plans_of_one_worker()
RULE = RestartRule(
    first_delay_seconds=1, factor=1, longest_delay_seconds=1, stable_seconds=1, max_failed_starts=3
)


class FakeKeeper:
    pid = 1
    place = ""
    restarts = 0

    def __init__(self, plan):
        self.plan = plan
        self.url = plan.url
        self.state = ProcessState.READY
        self.reason = ""

    async def run(self, *, stop, hurry, grace_seconds):
        del hurry, grace_seconds
        await stop.wait()

    def waits(self, reason):
        self.state, self.reason = ProcessState.PENDING, reason

    def serves(self):
        self.state, self.reason = ProcessState.READY, ""


class FakePlace:
    def __init__(self):
        self.keepers = {}

    def keeper(self, plan, keeping):
        del keeping
        return self.keepers.setdefault(plan.kind, FakeKeeper(plan))


class FakeConsole:
    is_live = False

    def __init__(self):
        self.boxes = []

    def box(self, lines):
        self.boxes.append(lines)

    def know(self, name):
        del name

    note = status = know


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def fleet(monkeypatch):
    """The place and the console of a fleet that runs; its worker waits at first."""

    async def workers(client, url):
        del client, url
        status = WorkerStatus(state=WorkerState.READY, models=[])
        return [SimpleNamespace(address=plan.url, status=status) for plan in PLANS]

    monkeypatch.setattr("controller.fleet.supervisor.fetch_workers", workers)
    monkeypatch.setattr("controller.fleet.supervisor._POLL_SECONDS", 0.01)
    place, console = FakePlace(), FakeConsole()
    for plan in PLANS:
        place.keeper(plan, None)
    place.keepers[ProcessKind.WORKER].waits("waits for a place: it needs 1 GPU")
    supervisor = Supervisor(
        PLANS, place=place, rule=RULE, grace_seconds=1, console=console, logs=LogBook()
    )
    task = asyncio.create_task(supervisor.run())
    await until(lambda: console.boxes)
    yield place.keepers[ProcessKind.WORKER], console
    supervisor.request_stop()
    await asyncio.wait_for(task, 60)


async def test_what_waits_for_a_place_is_named_and_once_it_serves_all_is_announced_again(fleet):
    worker, console = fleet
    assert console.boxes[0][0] == "No model is ready"
    assert "Not w: waits for a place: it needs 1 GPU" in console.boxes[0]
    await asyncio.sleep(0.1)
    assert len(console.boxes) == 1, "nothing new has happened"
    worker.serves()
    await until(lambda: len(console.boxes) > 1)
    assert console.boxes[1][0] == "Paragone is ready: w"
    assert not any(line.startswith("Not ") for line in console.boxes[1])


async def test_what_is_lost_and_comes_back_after_all_was_there_is_no_new_start(fleet):
    worker, console = fleet
    worker.serves()
    await until(lambda: len(console.boxes) > 1)
    worker.waits("waits for a node")
    await asyncio.sleep(0.1)
    worker.serves()
    await asyncio.sleep(0.1)
    assert len(console.boxes) == 2
