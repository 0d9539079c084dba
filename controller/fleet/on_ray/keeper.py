"""Follows one worker on the cluster. Ray starts it again and moves it; this only sees that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

from controller.fleet.commands import ProcessPlan
from controller.fleet.keeper import wait_at_most
from controller.fleet.needs import Wait
from controller.fleet.on_ray.messages import DeadError, LostError, News, Order
from controller.fleet.on_ray.standing import Standing
from controller.fleet.place import PlaceError
from controller.fleet.reporter import Reporter
from controller.fleet.restart import ProcessState, RestartRule

# Unplaced for longer than this, a worker is said to wait, and for what.
_PLACING_SECONDS: Final = 15.0

# How often it is looked for what a worker waits for.
_LOOK_SECONDS: Final = 2.0

# Where it may have a place, that long at most: its actor's process has to start, which takes a busy
# machine a while, and what is kept for it there is not free either.
_STARTING_SECONDS: Final = 90.0

# Between two questions to an actor that is not there.
_ASK_AGAIN_SECONDS: Final = 0.5

# What a stop takes beyond the grace: the way there and back.
_STOP_EXTRA_SECONDS: Final = 5.0


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
        cause: Callable[[], Wait | None],
        rule: RestartRule,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self._standing = Standing(plan.name, rule=rule, reporter=reporter, clock=clock)
        self._start = start
        self._cause = cause
        self._clock = clock
        self._actor: Actor | None = None
        self._orders: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> ProcessState:
        """Where it is in its life."""
        return self._standing.state

    @property
    def pid(self) -> int | None:
        """Its process id on its node; None while it does not run."""
        return self._standing.pid

    @property
    def url(self) -> str | None:
        """Where it is reached now; None while nobody knows."""
        return self._standing.url

    @property
    def place(self) -> str:
        """The node that it runs on."""
        return self._standing.place

    @property
    def has_place(self) -> bool:
        """Whether something on the cluster is known to be kept for it."""
        over = {ProcessState.GIVEN_UP, ProcessState.STOPPED}
        return bool(self._standing.life) and self.state not in over

    @property
    def reason(self) -> str:
        """Why it was given up, or what it waits for."""
        return self._standing.reason

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._standing.restarts

    def became_ready(self) -> None:
        """Somebody has seen that it serves."""
        self._standing.became_ready()
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
                    self._standing.died(str(exc))
                    await wait_at_most(stop, _ASK_AGAIN_SECONDS)
                else:
                    await self._follow(stop)
            if self.state is not ProcessState.GIVEN_UP:
                await self._stop(hurry, grace_seconds)
                self._standing.stopped()
        finally:
            if self._actor is not None:
                await asyncio.to_thread(self._actor.kill)
            self._standing.ended()

    async def _follow(self, stop: asyncio.Event) -> None:
        """Until the fleet stops, or the actor is no more."""
        assert self._actor is not None  # noqa: S101 - it was started
        stopping = asyncio.create_task(stop.wait())
        asking: asyncio.Task[News] | None = None
        standing = self._standing
        unplaced_since = self._clock()
        try:
            while not stop.is_set() and self.state is not ProcessState.GIVEN_UP:
                if asking is None:
                    asking = asyncio.create_task(self._actor.news(standing.life, standing.until))
                await asyncio.wait(
                    {asking, stopping},
                    timeout=_LOOK_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if asking.done():
                    answer, asking = asking, None
                    try:
                        standing.take(answer.result())
                    except LostError:
                        if standing.lost():
                            unplaced_since = self._clock()
                        await wait_at_most(stop, _ASK_AGAIN_SECONDS)
                    except DeadError as exc:
                        standing.died(str(exc))
                        await wait_at_most(stop, _ASK_AGAIN_SECONDS)
                        return
                waited = self._clock() - unplaced_since
                if not standing.life and waited >= _PLACING_SECONDS and not stop.is_set():
                    await self._say_what_it_waits_for(waited)
        finally:
            stopping.cancel()
            if asking is not None:
                asking.cancel()

    async def _say_what_it_waits_for(self, waited_seconds: float) -> None:
        try:
            wait = await asyncio.to_thread(self._cause)
        except PlaceError as exc:
            wait = Wait(str(exc))
        if wait is None:
            wait = Wait(
                f"waits for a place: no node has {self.plan.needs} free at once",
                may_have_a_place=True,
            )
        if not wait.may_have_a_place or waited_seconds >= _STARTING_SECONDS:
            self._standing.waits(wait.cause)

    async def _tell(self, order: Order) -> None:
        if self._actor is not None:
            # Whoever follows it sees that it is gone.
            with contextlib.suppress(LostError, DeadError):
                await self._actor.tell(order)

    async def _stop(self, hurry: asyncio.Event, grace_seconds: float) -> None:
        """Has it drained, and its last lines told."""
        if self._actor is None or not self._standing.life:
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
            news = await self._actor.news(self._standing.life, self._standing.until)
            self._standing.take(news)
