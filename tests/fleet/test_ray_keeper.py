"""What the supervisor makes of an actor's fate; the actor is a fake, and Ray is not needed."""

from __future__ import annotations

import asyncio

import pytest

from controller.fleet.needs import Wait
from controller.fleet.on_ray import keeper as keeper_module
from controller.fleet.on_ray.keeper import RayKeeper
from controller.fleet.on_ray.messages import Condition, DeadError, LostError, News, Said
from controller.fleet.place import PlaceError
from controller.fleet.restart import ProcessState, RestartRule
from tests.fleet.fleet_files import plans_of_one_worker
from tests.waiting import until

pytestmark = pytest.mark.anyio

PLAN = plans_of_one_worker()[1]
RULE = RestartRule(
    first_delay_seconds=0.01,
    factor=1,
    longest_delay_seconds=1,
    stable_seconds=10,
    max_failed_starts=3,
)


class FakeActor:
    """Answers with what a test puts into its queue; without anything it is not placed yet."""

    def __init__(self):
        self.fates = asyncio.Queue()
        self.orders = []
        self.is_killed = False

    async def news(self, life, after):
        fate = await self.fates.get()
        if isinstance(fate, Exception):
            raise fate
        return fate

    async def tell(self, order):
        self.orders.append(order.word)

    async def ended(self):
        self.fates.put_nowait(news(said=[("line", "goodbye")]))

    def kill(self):
        self.is_killed = True


class Told:
    def __init__(self):
        self.lines = []

    def line(self, name, text):
        self.lines.append(text)

    alarm = repeat = line


def news(life="1", *, state=ProcessState.STARTING, pid=7, restarts=0, reason="", said=()):
    return News(
        life=life,
        node=f"node {life}",
        until=1,
        said=tuple(Said(kind=kind, text=text) for kind, text in said),
        condition=Condition(
            state=state, pid=pid, url="http://n:1", reason=reason, restarts=restarts
        ),
    )


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def actors(monkeypatch):
    monkeypatch.setattr(keeper_module, "_ASK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(keeper_module, "_PLACING_SECONDS", 0.05)
    monkeypatch.setattr(keeper_module, "_LOOK_SECONDS", 0.05)
    return []


@pytest.fixture
async def running(actors):
    """A keeper that runs, with what ends it."""
    told, stop = Told(), asyncio.Event()
    causes = [None]

    def start():
        actors.append(FakeActor())
        return actors[-1]

    keeper = RayKeeper(PLAN, start=start, cause=lambda: causes[0], rule=RULE, reporter=told)
    keeper.told = told.lines
    keeper.causes = causes
    task = asyncio.create_task(keeper.run(stop=stop, hurry=asyncio.Event(), grace_seconds=1))
    await until(lambda: actors)
    yield keeper
    stop.set()
    await asyncio.wait_for(task, 60)


async def test_a_placed_worker_is_where_its_node_says(running, actors):
    actors[0].fates.put_nowait(news(said=[("line", "hello")]))
    await until(lambda: running.pid)
    assert (running.url, running.place) == ("http://n:1", "node 1")
    assert running.told == ["placed on node 1", "hello"]


async def test_before_its_process_has_started_its_port_may_be_anothers(running, actors):
    actors[0].fates.put_nowait(news(pid=None))
    await until(lambda: running.place)
    assert running.url is None


async def test_an_unplaced_worker_is_pending_with_its_cause_and_told_once(running, actors):
    running.causes[0] = Wait("waits for a place: it needs 1 GPU")
    await until(lambda: running.state is ProcessState.PENDING)
    await asyncio.sleep(0.2)
    assert running.told == ["waits for a place: it needs 1 GPU"]
    running.causes[0] = Wait("waits for a place: it needs 2 CPU")
    await until(lambda: running.reason == "waits for a place: it needs 2 CPU")
    actors[0].fates.put_nowait(news())
    await until(lambda: running.state is ProcessState.STARTING)
    assert running.reason == ""


@pytest.mark.parametrize(
    ("wait", "said"),
    [
        (None, "waits for a place: no node has nothing free at once"),
        (Wait("waits, or starts", may_have_a_place=True), "waits, or starts"),
    ],
)
async def test_what_may_have_a_place_is_only_said_to_wait_after_long(
    running, actors, monkeypatch, wait, said
):
    running.causes[0] = wait
    await asyncio.sleep(0.2)
    assert running.state is ProcessState.STARTING
    assert running.told == []
    monkeypatch.setattr(keeper_module, "_STARTING_SECONDS", 0.1)
    await until(lambda: running.told == [said])
    assert running.state is ProcessState.PENDING


async def test_a_worker_has_a_place_from_its_first_news_until_it_is_lost_or_given_up(
    running, actors
):
    assert not running.has_place
    actors[0].fates.put_nowait(news())
    await until(lambda: running.has_place)
    actors[0].fates.put_nowait(LostError("gone"))
    await until(lambda: not running.has_place)
    actors[0].fates.put_nowait(news("2", state=ProcessState.GIVEN_UP, pid=None, reason="no use"))
    await until(lambda: running.state is ProcessState.GIVEN_UP)
    assert not running.has_place


async def test_a_lost_node_is_told_and_the_next_life_is_a_restart(running, actors):
    actors[0].fates.put_nowait(news())
    await until(lambda: running.pid)
    running.became_ready()
    await until(lambda: actors[0].orders == ["ready"])
    actors[0].fates.put_nowait(LostError("gone"))
    actors[0].fates.put_nowait(LostError("still gone"))
    await until(lambda: running.pid is None)
    actors[0].fates.put_nowait(news("2"))
    await until(lambda: running.place == "node 2")
    assert (running.restarts, running.state) == (1, ProcessState.STARTING)
    assert "was lost with node 1; Ray places it anew" in running.told
    assert len(actors) == 1, "Ray starts it again, not we"


async def test_a_move_that_no_question_met_is_a_restart_too(running, actors):
    actors[0].fates.put_nowait(news("1"))
    actors[0].fates.put_nowait(news("2", pid=8))
    await until(lambda: running.pid == 8)
    assert (running.restarts, running.place) == (1, "node 2")


async def test_a_cluster_that_does_not_answer_ends_no_fleet(running, actors):
    def cause():
        raise PlaceError("the Ray cluster says: nothing")

    running._cause = cause
    await until(lambda: running.reason == "the Ray cluster says: nothing")
    actors[0].fates.put_nowait(news())
    await until(lambda: running.pid)


async def test_one_that_is_lost_again_and_again_before_it_serves_stays_down(running, actors):
    for life in "123":
        actors[0].fates.put_nowait(news(life))
        actors[0].fates.put_nowait(LostError("gone"))
    await until(lambda: running.state is ProcessState.GIVEN_UP)
    assert running.reason == "3 starts in a row ended before it was ready"
    await until(lambda: actors[0].is_killed)


async def test_an_actor_that_cannot_be_made_is_tried_as_often_as_the_rule_says(running, actors):
    for count in (1, 2, 3):
        await until(lambda count=count: len(actors) == count)
        actors[-1].fates.put_nowait(DeadError("no module named controller"))
    await until(lambda: running.state is ProcessState.GIVEN_UP)
    assert "Ray could not run it: no module named controller; once more" in running.told


async def test_a_process_that_its_node_gave_up_on_is_given_up_and_frees_its_place(running, actors):
    actors[0].fates.put_nowait(news(state=ProcessState.GIVEN_UP, pid=None, reason="no use"))
    await until(lambda: actors[0].is_killed)
    assert (running.state, running.reason) == (ProcessState.GIVEN_UP, "no use")


async def test_a_process_that_was_started_again_in_place_has_to_be_seen_serving_anew(
    running, actors
):
    actors[0].fates.put_nowait(news())
    await until(lambda: running.pid)
    running.became_ready()
    actors[0].fates.put_nowait(news(state=ProcessState.READY))
    actors[0].fates.put_nowait(news(pid=8, restarts=1))
    await until(lambda: running.pid == 8)
    assert (running.restarts, running.state) == (1, ProcessState.STARTING)


async def test_a_stop_is_an_order_first_and_its_last_lines_are_told(actors):
    told, stop = Told(), asyncio.Event()

    def start():
        actors.append(FakeActor())
        return actors[-1]

    keeper = RayKeeper(PLAN, start=start, cause=lambda: None, rule=RULE, reporter=told)
    task = asyncio.create_task(keeper.run(stop=stop, hurry=asyncio.Event(), grace_seconds=1))
    await until(lambda: actors)
    actors[0].fates.put_nowait(news())
    await until(lambda: keeper.pid)
    stop.set()
    await asyncio.wait_for(task, 60)
    assert keeper.state is ProcessState.STOPPED
    assert actors[0].orders == ["stop"]
    assert told.lines[-1] == "goodbye"
    assert actors[0].is_killed
