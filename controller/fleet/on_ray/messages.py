"""What is said between the supervisor, a worker's actor on its node, and the process beside it."""

from __future__ import annotations

from typing import Literal

from controller.fleet.commands import ProcessPlan
from controller.fleet.restart import ProcessState, RestartRule
from controller.fleet.section import Section


class LostError(Exception):
    """An actor is gone with its node or its process; Ray starts it again, perhaps elsewhere."""


class DeadError(Exception):
    """An actor is gone, and Ray does not start it again; the message says why."""


class Tending(Section):
    """What the tender is to run: the first line that it reads."""

    plan: ProcessPlan
    rule: RestartRule
    grace_seconds: float  # between SIGTERM and SIGKILL


class Order(Section):
    """What the tender is told later; the end of its input means `stop`."""

    word: Literal["ready", "stop", "hurry"]
    pid: int | None = None  # ready: which process was seen to serve


class Said(Section):
    """A line of the process, or about it."""

    kind: Literal["line", "alarm", "repeat"]
    text: str


class Condition(Section):
    """How the process is."""

    state: ProcessState
    pid: int | None
    url: str
    reason: str
    restarts: int


class News(Section):
    """What happened since the last time.

    A life begins with each start of the actor, and ends with its node or its process.
    """

    life: str
    node: str  # for people: its address, and the beginning of its id
    until: int  # what to ask for next time
    said: tuple[Said, ...] = ()
    has_gap: bool = False  # lines were not fetched as long as they were kept
    condition: Condition | None = None  # None until the tender has told one
