"""Keeps one process of a fleet running until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping

from controller.fleet.child import Child
from controller.fleet.commands import ProcessPlan
from controller.fleet.fork_servers import ForkServers
from controller.fleet.groups import ProcessGroups
from controller.fleet.reporter import Reporter
from controller.fleet.restart import GiveUp, ProcessState, RestartRecord, RestartRule

# Log lines that are shown again when a process is given up.
_TAIL_LINES = 15

# What a shell reports for a command that it cannot run.
_EXIT_CANNOT_START = 126


def _as_it_is(plan: ProcessPlan) -> ProcessPlan:
    return plan


class Keeper:
    """Starts a process, starts it again when it exits, and stops it.

    Args:
        plan: the process.
        rule: when it is started again.
        reporter: is told what it says.
        groups: is told of its process groups.
        inherited: the environment that processes inherit.
        clock: monotonic seconds.
        forks: forks processes whose plans say so; without it they are started by themselves.
        fit: makes of the plan, before each start, what is started: another port, say.
    """

    def __init__(
        self,
        plan: ProcessPlan,
        *,
        rule: RestartRule,
        reporter: Reporter,
        groups: ProcessGroups,
        inherited: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
        forks: ForkServers | None = None,
        fit: Callable[[ProcessPlan], ProcessPlan] = _as_it_is,
    ) -> None:
        self.plan = plan
        self.state = ProcessState.STARTING
        self.pid: int | None = None
        self.place = ""
        self.reason = ""  # why it was given up
        self.restarts = 0
        self._record = RestartRecord(rule)
        self._reporter = reporter
        self._groups = groups
        self._inherited = inherited
        self._clock = clock
        self._forks = forks
        self._fit = fit
        self._started = plan  # what was started last
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def url(self) -> str:
        """Where it is reached now, without a trailing slash."""
        return self._started.url

    def became_ready(self) -> None:
        """Somebody has seen that it serves."""
        self.state = ProcessState.READY
        self._record.became_ready(self._clock())

    async def run(self, *, stop: asyncio.Event, hurry: asyncio.Event, grace_seconds: float) -> None:
        """Runs until ``stop`` is set, or until the process has to be given up.

        Args:
            stop: ends it, with a SIGTERM first.
            hurry: once set, nothing is waited for.
            grace_seconds: between SIGTERM and SIGKILL.
        """
        while not stop.is_set():
            status = await self._run_once(stop=stop, hurry=hurry, grace_seconds=grace_seconds)
            if stop.is_set():
                break
            decision = self._record.exited(status, self._clock())
            if isinstance(decision, GiveUp):
                self._give_up(status, decision)
                return
            self.state = ProcessState.WAITING
            self.restarts += 1
            self._alarm(f"{describe_exit(status)}; starting again in {decision.delay_seconds:g} s")
            await wait_at_most(stop, decision.delay_seconds)
        self.state = ProcessState.STOPPED

    async def _run_once(
        self, *, stop: asyncio.Event, hurry: asyncio.Event, grace_seconds: float
    ) -> int:
        self._tail.clear()
        self.state = ProcessState.STARTING
        self._started = self._fit(self.plan)
        stopping = asyncio.create_task(stop.wait())
        # A fork server may have to import first, which nobody who stops a fleet is to wait for.
        starting = asyncio.create_task(self._start(self._started))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            child = await starting
        except asyncio.CancelledError:
            if not stopping.done():  # it is this task that was cancelled
                raise
            return 0
        except OSError as exc:
            self._show(f"cannot be started: {exc.strerror}")
            return _EXIT_CANNOT_START
        self.pid = child.pid
        ended = asyncio.create_task(child.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ended.done():
            status = await child.stop(grace_seconds=grace_seconds, hurry=hurry)
            if status == -signal.SIGKILL and not hurry.is_set():
                self._alarm(f"was killed: it had not stopped after {grace_seconds:g} s")
        self.pid = None
        return await ended

    async def _start(self, plan: ProcessPlan) -> Child:
        """Raises OSError where the system would not start it."""
        env = plan.environ(self._inherited)
        if plan.is_forked and self._forks is not None:
            child = await self._forks.fork(plan.name, plan.args, env=env, on_line=self._show)
            if child is not None:
                return child
        return await Child.start(plan.argv(), env=env, on_line=self._show, groups=self._groups)

    def _show(self, line: str) -> None:
        self._tail.append(line)
        self._reporter.line(self.plan.name, line)

    def _alarm(self, text: str) -> None:
        self._reporter.alarm(self.plan.name, text)

    def _give_up(self, status: int, decision: GiveUp) -> None:
        self.state = ProcessState.GIVEN_UP
        self.reason = decision.reason
        self._alarm(f"{describe_exit(status)}; it stays down: {decision.reason}")
        self._alarm(f"its command: {self._started.shell_command()}")
        self._reporter.repeat(self.plan.name, f"its last {len(self._tail)} lines:")
        for line in self._tail:
            self._reporter.repeat(self.plan.name, f"  {line}")


def describe_exit(status: int) -> str:
    """``exited with status 1``, or ``was killed by SIGKILL``."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-status}"


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but no longer than that."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
