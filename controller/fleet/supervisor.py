"""Runs a fleet: starts its processes, shows how they come up, keeps them running, stops them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from controller.fleet.board import board_rows
from controller.fleet.certificates import Believed
from controller.fleet.changes import Changes
from controller.fleet.commands import ProcessKind, ProcessPlan
from controller.fleet.console import Console
from controller.fleet.fork_servers import ForkServers
from controller.fleet.groups import ProcessGroups
from controller.fleet.log_book import LogBook
from controller.fleet.place import Keeping, Place, ProcessKeeper
from controller.fleet.probe import ProbeError, fetch_workers, fleet_client, is_ready
from controller.fleet.reporter import FleetReporter
from controller.fleet.restart import ProcessState, RestartRule
from controller.protocol.fleet import WorkerState, WorkerStatus

# Often enough for a progress line that seems to move.
_POLL_SECONDS = 0.25

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A process with what ends it."""

    keeper: ProcessKeeper
    stop: asyncio.Event
    task: asyncio.Task[None]


class Supervisor:
    """A running fleet.

    Args:
        plans: its processes; the controller among them.
        place: where they run.
        rule: when one that exited is started again.
        grace_seconds: between SIGTERM and SIGKILL.
        console: where everything is shown.
        logs: keeps the processes' lines.
        inherited: the environment that the processes inherit.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        plans: Sequence[ProcessPlan],
        *,
        place: Place,
        rule: RestartRule,
        grace_seconds: float,
        console: Console,
        logs: LogBook,
        inherited: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._initial_plans = plans
        self._place = place
        self._rule = rule
        self._grace_seconds = grace_seconds
        self._console = console
        self._reporter = FleetReporter(console, logs)
        self._inherited = os.environ if inherited is None else inherited
        self._clock = clock
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._was_asked_to_stop = False
        self._kept: list[_Kept] = []
        self._groups: ProcessGroups | None = None
        self._forks: ForkServers | None = None
        self._tasks: asyncio.TaskGroup | None = None
        # By address; the controller's word, so that a model shown as ready is one it routes to.
        self._statuses: dict[str, WorkerStatus] = {}
        self._is_announced = False
        self._is_anything_missing = False
        self._believed = Believed()

    @property
    def plans(self) -> list[ProcessPlan]:
        """The processes that run now, or are to."""
        return [keeper.plan for keeper in self._keepers]

    @property
    def controller_url(self) -> str:
        """Where the controller is reached."""
        return self._controller().url

    def troubles(self) -> list[str]:
        """A line for each process that does not run, and why."""
        down = {ProcessState.GIVEN_UP, ProcessState.PENDING, ProcessState.WAITING}
        return [
            ": ".join(filter(None, (keeper.plan.name, keeper.state.value, keeper.reason)))
            for keeper in self._keepers
            if keeper.state in down
        ]

    @property
    def _keepers(self) -> list[ProcessKeeper]:
        return [kept.keeper for kept in self._kept]

    def stop(self, *, now: bool) -> None:
        """Stops the fleet; asked again, nothing changes unless it is to happen ``now``."""
        if not self._was_asked_to_stop:
            self.request_stop()
        if now:
            self._hurry.set()

    def request_stop(self) -> None:
        """Stops the fleet; asked a second time, kills it."""
        if self._was_asked_to_stop:
            self._console.note("killing what is left")
            self._hurry.set()
            return
        self._was_asked_to_stop = True
        self._console.note("stopping (once more to kill)")
        self._stop.set()

    async def run(self) -> int:
        """Runs until it is stopped by a signal, or until nothing is left to run.

        Returns:
            The exit status: 0 if it was asked to stop, 1 if it had to give up.
        """
        loop = asyncio.get_running_loop()
        # nohup, and a shell's background jobs, have some of them ignored: that is kept.
        heeded = [s for s in _STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        for number in heeded:
            loop.add_signal_handler(number, self.request_stop)
        try:
            with ProcessGroups() as self._groups:
                async with ForkServers(groups=self._groups, reporter=self._reporter) as self._forks:
                    await self._run_processes()
        finally:
            for number in heeded:
                loop.remove_signal_handler(number)
        self._console.note("everything has stopped")
        return 0 if self._was_asked_to_stop else 1

    async def change_to(
        self, plans: Sequence[ProcessPlan], *, rule: RestartRule, grace_seconds: float
    ) -> Changes:
        """Runs other processes from now on; those that are the same run on untouched.

        Args:
            plans: all that are to run; the controller among them.
            rule: for those that are started now.
            grace_seconds: between SIGTERM and SIGKILL, for all.

        Returns:
            What was started, stopped and left alone; nothing if the fleet is being stopped.
        """
        self._rule, self._grace_seconds = rule, grace_seconds
        staying = {
            plan.name: kept
            for plan in plans
            for kept in self._kept
            if plan.is_same_process(kept.keeper.plan)
            # One that stays down gets another try.
            and kept.keeper.state is not ProcessState.GIVEN_UP
        }
        leaving = [kept for kept in self._kept if kept not in staying.values()]
        old = {kept.keeper.plan.name for kept in leaving}
        # Listed until they are gone, so that nobody takes the fleet for empty.
        await self._end(leaving)
        if self._stop.is_set():
            return Changes(stopped=sorted(old))
        self._kept = [staying.get(plan.name) or self._begin(plan) for plan in plans]
        self._is_announced = False
        new = {plan.name for plan in plans} - staying.keys()
        changes = Changes(
            started=sorted(new - old),
            restarted=sorted(new & old),
            stopped=sorted(old - new),
            untouched=sorted(staying),
        )
        self._console.note(str(changes))
        return changes

    def _begin(self, plan: ProcessPlan) -> _Kept:
        assert self._groups is not None  # noqa: S101 - it runs
        assert self._forks is not None  # noqa: S101
        assert self._tasks is not None  # noqa: S101
        self._console.know(plan.name)
        self._believed.add(plan.certificate)
        keeping = Keeping(
            rule=self._rule,
            reporter=self._reporter,
            groups=self._groups,
            forks=self._forks,
            inherited=self._inherited,
            clock=self._clock,
        )
        keeper = self._place.keeper(plan, keeping)
        stop = asyncio.Event()
        task = self._tasks.create_task(
            keeper.run(stop=stop, hurry=self._hurry, grace_seconds=self._grace_seconds)
        )
        return _Kept(keeper, stop, task)

    async def _end(self, leaving: Sequence[_Kept]) -> None:
        """The controller stops last, so that workers can leave its list and answers reach it."""
        for last in (False, True):
            part = [
                kept
                for kept in leaving
                if (kept.keeper.plan.kind is ProcessKind.CONTROLLER) is last
            ]
            for kept in part:
                kept.stop.set()
            await asyncio.gather(*(kept.task for kept in part))

    async def _run_processes(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            self._kept = [self._begin(plan) for plan in self._initial_plans]
            watch = self._tasks.create_task(self._watch())
            await self._stop.wait()
            watch.cancel()
            self._console.status("")
            await self._end(self._kept)

    async def _watch(self) -> None:
        """Follows the processes until the fleet stops."""
        environ = self._controller().environ(self._inherited)
        async with fleet_client(environ, self._believed) as client:
            while True:
                await self._look(client)
                if self._is_hopeless():
                    self._stop.set()
                    return
                if self._has_news():
                    self._announce()
                self._console.status(self._board())
                await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, client: httpx.AsyncClient) -> None:
        """One look at the processes, unless all is known to be well and nobody watches."""
        if (
            not self._console.is_live
            and self._is_announced
            and all(self._is_settled(k) for k in self._keepers)
        ):
            return
        starting = [
            (keeper, keeper.pid, keeper.url)
            for keeper in self._keepers
            if keeper.state is ProcessState.STARTING and keeper.url is not None
        ]
        answers = await asyncio.gather(
            *(is_ready(client, keeper.plan.kind, url) for keeper, _, url in starting if url)
        )
        for (keeper, pid, _), ready in zip(starting, answers, strict=True):
            # The answer may be of a process that has gone since.
            if ready and keeper.state is ProcessState.STARTING and keeper.pid == pid:
                keeper.became_ready()
                if self._is_announced:
                    how = "is back" if keeper.restarts else "is ready"
                    self._console.note(f"{keeper.plan.name} {how}")
        with contextlib.suppress(ProbeError):  # the controller is not up yet, or down for a moment
            workers = await fetch_workers(client, self._controller().url)
            self._statuses = {view.address: view.status for view in workers}

    def _board(self) -> str:
        return "\n".join(board_rows(self._keepers, self._statuses))

    def _status(self, keeper: ProcessKeeper) -> WorkerStatus | None:
        """What the controller knows of a worker."""
        return None if keeper.url is None else self._statuses.get(keeper.url)

    def _is_settled(self, keeper: ProcessKeeper) -> bool:
        """Whether nothing more is to be expected of its start, in good or in bad."""
        if keeper.state in {ProcessState.GIVEN_UP, ProcessState.PENDING}:
            return True
        if keeper.plan.kind is not ProcessKind.WORKER:
            return keeper.state is ProcessState.READY
        status = self._status(keeper)
        if status is not None and status.state is WorkerState.FAILED:
            return True
        return (
            keeper.state is ProcessState.READY
            and status is not None
            and status.state is WorkerState.READY
        )

    def _failure(self, keeper: ProcessKeeper) -> str | None:
        """Why a settled process does not serve."""
        if keeper.state in {ProcessState.GIVEN_UP, ProcessState.PENDING}:
            return keeper.reason
        status = self._status(keeper)
        if status is not None and status.state is WorkerState.FAILED:
            return status.detail or "loading failed; its lines above say why"
        return None

    def _is_hopeless(self) -> bool:
        """Whether no request could be answered any more."""
        down = [k for k in self._keepers if k.state is ProcessState.GIVEN_UP]
        if any(k.plan.kind is ProcessKind.CONTROLLER for k in down):
            self._console.note("there is no controller: the fleet stops")
            return True
        if all(k in down for k in self._workers()):
            self._console.note("there is no worker left: the fleet stops")
            return True
        return False

    def _has_news(self) -> bool:
        """Whether the start is over, or what was missing at its end is there now."""
        if not all(self._is_settled(k) for k in self._keepers):
            return False
        return not self._is_announced or (
            self._is_anything_missing and not any(map(self._failure, self._keepers))
        )

    def _announce(self) -> None:
        self._is_announced = True
        self._is_anything_missing = any(map(self._failure, self._keepers))
        ready = [k.plan.name for k in self._workers() if self._failure(k) is None]
        lines = [f"Paragone is ready: {', '.join(ready)}" if ready else "No model is ready"]
        for keeper in self._keepers:
            failure = self._failure(keeper)
            if failure is not None:
                name = keeper.plan.name
                # In a terminal full of others' lines its own last ones are hard to find.
                why = f" (paragone logs {name})" if keeper.state is ProcessState.GIVEN_UP else ""
                lines.append(f"Not {name}: {failure}{why}")
            elif keeper.plan.kind is ProcessKind.WEBUI:
                lines.append(f"Page   {keeper.plan.url}")
        lines.append(f"API    {self._controller().url}/v1")
        lines.append("Ctrl-C stops everything")
        self._console.status("")
        self._console.box(lines)

    def _workers(self) -> list[ProcessKeeper]:
        return [k for k in self._keepers if k.plan.kind is ProcessKind.WORKER]

    def _controller(self) -> ProcessPlan:
        return next(plan for plan in self.plans if plan.kind is ProcessKind.CONTROLLER)
