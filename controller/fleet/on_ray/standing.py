"""How a worker on the cluster stands, by what is heard of it. Asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from controller.fleet.on_ray.messages import News
from controller.fleet.reporter import Reporter
from controller.fleet.restart import GiveUp, ProcessState, RestartRecord, RestartRule

# What an actor ends with, for the rule of restarts: no exit status that it knows.
_STATUS_LOST: Final = 1


class Standing:
    """A worker's state, place and restarts; what is new is told.

    Args:
        name: the process's.
        rule: when it is given up.
        reporter: is told what it says.
        clock: monotonic seconds.

    Attributes:
        life: of its actor, from a start to the loss of its node or process; empty while it has no
            place.
        until: which news of this life to ask for next.
    """

    def __init__(
        self,
        name: str,
        *,
        rule: RestartRule,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self.state = ProcessState.STARTING
        self.pid: int | None = None
        self.url: str | None = None
        self.place = ""
        self.reason = ""
        self.restarts = 0
        self.life = ""
        self.until = 0
        self._name = name
        self._record = RestartRecord(rule)
        self._reporter = reporter
        self._clock = clock
        self._ended_starts = 0  # of this life, by the tender's own count

    def became_ready(self) -> None:
        """Somebody has seen that it serves."""
        self.state = ProcessState.READY
        self._record.became_ready(self._clock())

    def take(self, news: News) -> None:
        """What happened to it since the last news."""
        condition = news.condition
        if news.life != self.life:
            if self.life:  # it was lost and placed anew between two questions
                self.lost()
                if self.state is ProcessState.GIVEN_UP:
                    return
            if self.state is ProcessState.PENDING:
                self.reason = ""
            self.state = ProcessState.STARTING
            self.life, self.place, self._ended_starts = news.life, news.node, 0
            self._reporter.line(self._name, f"placed on {news.node}")
        self.until = news.until
        if news.has_gap:
            self._reporter.alarm(self._name, "some of its lines were not read in time")
        for said in news.said:
            tell = {
                "line": self._reporter.line,
                "alarm": self._reporter.alarm,
                "repeat": self._reporter.repeat,
            }[said.kind]
            tell(self._name, said.text)
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

    def lost(self) -> bool:
        """The actor went with its node or its process; whether it had a place until now."""
        if not self.life:  # nothing new: Ray is still looking for a place
            return False
        place = self.place
        again = self._count_loss()
        if again is None:
            self._reporter.alarm(self._name, f"was lost with {place}; Ray places it anew")
        else:
            self._give_up(f"was lost with {place} again", again)
        return True

    def died(self, why: str) -> None:
        """Ray does not start the actor again: it could not be made at all."""
        again = self._count_loss()
        if again is None:
            self._reporter.alarm(self._name, f"Ray could not run it: {why}; once more")
        else:
            self._give_up(f"Ray could not run it: {why}", again)

    def waits(self, cause: str) -> None:
        """It has no place, and why."""
        if self.life or (self.state is ProcessState.PENDING and cause == self.reason):
            return
        self.state, self.reason = ProcessState.PENDING, cause
        self._reporter.line(self._name, cause)

    def stopped(self) -> None:
        """It was told to stop, and has."""
        self.state = ProcessState.STOPPED

    def ended(self) -> None:
        """Nothing runs of it any more."""
        self.pid = self.url = None

    def _count_loss(self) -> str | None:
        """Forgets its place; why it is given up, None where it is tried once more."""
        self.state = ProcessState.STARTING
        self.pid = self.url = None
        self.life, self.until, self.place = "", 0, ""
        self.restarts += 1
        decision = self._record.exited(_STATUS_LOST, self._clock())
        return decision.reason if isinstance(decision, GiveUp) else None

    def _give_up(self, what: str, why: str) -> None:
        self.state, self.reason = ProcessState.GIVEN_UP, why
        self._reporter.alarm(self._name, f"{what}; it stays down: {why}")
