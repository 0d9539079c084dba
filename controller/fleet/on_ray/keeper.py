"""Follows one worker on the cluster. Ray starts it again and moves it; this only sees that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

from controller.fleet.commands import ProcessPlan
from controller.fleet.keeper import wait_at_most
from controller.fleet.on_ray.messages import DeadError, LostError, News, Order
from controller.fleet.place import PlaceError
from controller.fleet.reporter import Reporter
from controller.fleet.restart import GiveUp, ProcessState, RestartRecord, RestartRule

# Unplaced for longer than this, a worker is said to wait, and for what. Until its process has
# started, what is kept for it there is not free either, and that is nothing to wait for.
_PLACING_SECONDS: Final = 8.0

# How often it is looked for what a worker waits for.
_LOOK_SECONDS: Final = 2.0

# Where there is enough of everything, a place takes this long at most: a process has to start.
_STARTING_SECONDS: Final = 20.0

# Between two questions to an actor that is not there.
_ASK_AGAIN_SECONDS: Final = 0.5

# What a stop takes beyond the grace: the way there and back.
_STOP_EXTRA_SECONDS: Final = 5.0

# What an actor ends with, for the rule of restarts: no exit status that it knows.
_STATUS_LOST: Final = 1


class Actor(Protocol):
    """A worker's actor; see `controller.fleet.on_ray.cluster.Hosted`."""

    async def news(self, life: str, after: int) -> News:
        """What happened there."""
        ...

    async def tell(self, order: Order) -> None:
        """Passes an order on."""
        ...

    async def ended(self) -> None:
        """Waits until nothing runs there any more."""
        ...

    def kill(self) -> None:
        """Ends it for good."""
        ...


class RayKeeper:
    """Has a worker run on the cluster until it is told to stop.

    Args:
        plan: the process.
        start: has an actor placed for it; a PlaceError if that cannot be asked for.
        cause: says what it waits for, None if there is enough of everything; as `start`, asked on a
            thread.
        rule: when it is given up.
        reporter: is told what it says.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        plan: ProcessPlan,
        *,
        start: Callable[[], Actor],
        cause: Callable[[], str | None],
        rule: RestartRule,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.state = ProcessState.STARTING
        self.pid: int | None = None
        self.url: str | None = None
        self.place = ""
        self.reason = ""
        self.restarts = 0
        self._start = start
        self._cause = cause
        self._record = RestartRecord(rule)
        self._reporter = reporter
        self._clock = clock
        self._actor: Actor | None = None
        self._life = ""  # empty while there is none
        self._until = 0
        self._ended_starts = 0  # of this life, by the tender's own count
        self._orders: set[asyncio.Task[None]] = set()

    def became_ready(self) -> None:
        """Somebody has seen that it serves."""
        self.state = ProcessState.READY
        self._record.became_ready(self._clock())
        task = asyncio.create_task(self._tell(Order(word="ready", pid=self.pid)))
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def run(self, *, stop: asyncio.Event, hurry: asyncio.Event, grace_seconds: float) -> None:
        """Runs until ``stop`` is set, or until the process has to be given up.

        Args:
            stop: ends it, with a SIGTERM first.
            hurry: once set, nothing is waited for.
            grace_seconds: between SIGTERM and SIGKILL.
        """
        try:
            while not stop.is_set() and self.state is not ProcessState.GIVEN_UP:
                try:
                    self._actor = await asyncio.to_thread(self._start)
                except PlaceError as exc:
                    self._die(str(exc))
                    await wait_at_most(stop, _ASK_AGAIN_SECONDS)
                else:
                    await self._follow(stop)
            if self.state is not ProcessState.GIVEN_UP:
                await self._stop(hurry, grace_seconds)
                self.state = ProcessState.STOPPED
        finally:
            if self._actor is not None:
                await asyncio.to_thread(self._actor.kill)
            self.pid = self.url = None

    async def _follow(self, stop: asyncio.Event) -> None:
        """Until the fleet stops, or the actor is no more."""
        assert self._actor is not None  # noqa: S101 - it was started
        stopping = asyncio.create_task(stop.wait())
        asking: asyncio.Task[News] | None = None
        unplaced_since = self._clock()
        try:
            while not stop.is_set() and self.state is not ProcessState.GIVEN_UP:
                if asking is None:
                    asking = asyncio.create_task(self._actor.news(self._life, self._until))
                await asyncio.wait(
                    {asking, stopping},
                    timeout=_LOOK_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if asking.done():
                    answer, asking = asking, None
                    try:
                        self._take(answer.result())
                    except LostError:
                        unplaced_since = self._lose(unplaced_since)
                        await wait_at_most(stop, _ASK_AGAIN_SECONDS)
                    except DeadError as exc:
                        self._die(str(exc))
                        await wait_at_most(stop, _ASK_AGAIN_SECONDS)
                        return
                waited = self._clock() - unplaced_since
                if not self._life and waited >= _PLACING_SECONDS and not stop.is_set():
                    await self._say_what_it_waits_for(waited)
        finally:
            stopping.cancel()
            if asking is not None:
                asking.cancel()

    def _take(self, news: News) -> None:
        condition = news.condition
        if news.life != self._life:
            if self._life:  # it was lost and placed anew between two questions
                self._lose(self._clock())
                if self.state is ProcessState.GIVEN_UP:
                    return
            if self.state is ProcessState.PENDING:
                self.reason = ""
            self.state = ProcessState.STARTING
            self._life, self.place, self._ended_starts = news.life, news.node, 0
            self._reporter.line(self.plan.name, f"placed on {news.node}")
        self._until = news.until
        if news.has_gap:
            self._reporter.alarm(self.plan.name, "some of its lines were not read in time")
        for said in news.said:
            tell = {
                "line": self._reporter.line,
                "alarm": self._reporter.alarm,
                "repeat": self._reporter.repeat,
            }[said.kind]
            tell(self.plan.name, said.text)
        if condition is None:
            return
        if condition.restarts != self._ended_starts:
            self.restarts += condition.restarts - self._ended_starts
            self._ended_starts = condition.restarts
            self.state = ProcessState.STARTING
        self.pid = condition.pid
        # Before it has started, its port may still be another one's.
        self.url = None if condition.pid is None else condition.url
        # Whether it serves is for those to say who look; they see what requests would.
        if condition.state is ProcessState.WAITING:
            self.state = ProcessState.WAITING
        elif condition.state is ProcessState.STARTING and self.state is ProcessState.WAITING:
            self.state = ProcessState.STARTING
        elif condition.state is ProcessState.GIVEN_UP:
            self.state, self.reason = ProcessState.GIVEN_UP, condition.reason

    def _lose(self, unplaced_since: float) -> float:
        """The actor went with its node or its process. Returns since when it has no place."""
        if not self._life:  # nothing new: Ray is still looking for a place
            return unplaced_since
        place = self.place
        self._forget()
        self.restarts += 1
        decision = self._record.exited(_STATUS_LOST, self._clock())
        if isinstance(decision, GiveUp):
            self._give_up(f"was lost with {place} again", decision.reason)
        else:
            self._reporter.alarm(self.plan.name, f"was lost with {place}; Ray places it anew")
        return self._clock()

    def _die(self, why: str) -> None:
        """Ray does not start the actor again: it could not be made at all."""
        self._forget()
        self.restarts += 1
        decision = self._record.exited(_STATUS_LOST, self._clock())
        if isinstance(decision, GiveUp):
            self._give_up(f"Ray could not run it: {why}", decision.reason)
        else:
            self._reporter.alarm(self.plan.name, f"Ray could not run it: {why}; once more")

    def _give_up(self, what: str, why: str) -> None:
        self.state, self.reason = ProcessState.GIVEN_UP, why
        self._reporter.alarm(self.plan.name, f"{what}; it stays down: {why}")

    def _forget(self) -> None:
        self.state = ProcessState.STARTING
        self.pid = self.url = None
        self._life, self._until, self.place = "", 0, ""

    async def _say_what_it_waits_for(self, waited_seconds: float) -> None:
        try:
            cause = await asyncio.to_thread(self._cause)
        except PlaceError as exc:
            cause = str(exc)
        if cause is None:
            if waited_seconds < _STARTING_SECONDS:
                return
            cause = f"waits for a place: no node has {self.plan.needs} free at once"
        if self._life or (self.state is ProcessState.PENDING and cause == self.reason):
            return
        self.state, self.reason = ProcessState.PENDING, cause
        self._reporter.line(self.plan.name, cause)

    async def _tell(self, order: Order) -> None:
        if self._actor is not None:
            # Whoever follows it sees that it is gone.
            with contextlib.suppress(LostError, DeadError):
                await self._actor.tell(order)

    async def _stop(self, hurry: asyncio.Event, grace_seconds: float) -> None:
        """Has it drained, and its last lines told."""
        if self._actor is None or not self._life:
            return
        hurried = asyncio.create_task(hurry.wait())
        ended = asyncio.create_task(self._see_out(Order(word="stop")))
        await asyncio.wait(
            {hurried, ended},
            timeout=grace_seconds + _STOP_EXTRA_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not ended.done() and hurry.is_set():
            await self._tell(Order(word="hurry"))
            await asyncio.wait({ended}, timeout=_STOP_EXTRA_SECONDS)
        hurried.cancel()
        ended.cancel()

    async def _see_out(self, order: Order) -> None:
        assert self._actor is not None  # noqa: S101 - it is stopped
        with contextlib.suppress(LostError, DeadError):
            await self._actor.tell(order)
            await self._actor.ended()
            self._take(await self._actor.news(self._life, self._until))
