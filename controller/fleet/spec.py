"""What a fleet file may say: which processes a fleet has, and how each is started.

Nothing here looks at the machine: ports, folders and packages are the preflight's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field, field_validator, model_validator

from controller.fleet.naming import name_problems
from controller.fleet.process_spec import ControllerSpec, Environment, ListeningProcess, WebSpec
from controller.fleet.section import Section
from controller.fleet.worker_spec import WorkerSpec


class RestartSpec(Section):
    """When a process that exited is started again."""

    first_delay_seconds: float = Field(
        default=0.5, gt=0, description="pause before the first restart"
    )
    factor: float = Field(default=2.0, ge=1, description="growth of the pause, restart by restart")
    longest_delay_seconds: float = Field(default=30.0, gt=0, description="the pause's upper bound")
    stable_seconds: float = Field(
        default=10.0, ge=0, description="a run this long after becoming ready resets the pause"
    )
    max_failed_starts: int = Field(
        default=5,
        ge=1,
        description="starts in a row that never became ready, after which it stays down",
    )


class FleetSpec(Section):
    """A fleet: one controller, perhaps the web page, and workers."""

    controller: ControllerSpec = Field(
        default=ControllerSpec(), description="the controller; may be left out for the defaults"
    )
    web: WebSpec | None = Field(
        default=None, description="the web page; left out: no page ({} takes the defaults)"
    )
    workers: tuple[WorkerSpec, ...] = Field(
        # Checked below: pydantic's own check also counts entries that are only misspelt as absent.
        json_schema_extra={"minItems": 1},
        description="the workers, one at least",
    )
    env: Environment = Field(
        default_factory=dict, description="environment variables of every process"
    )
    restart: RestartSpec = Field(
        default=RestartSpec(), description="when a process that exited is started again"
    )
    stop_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        description="how long a process may take to stop before it is killed",
    )
    fork_workers: bool = Field(
        default=True,
        description="let `paragone up` fork workers that use no GPU and have the same environment "
        "from one process that has imported what they need; false starts each by itself",
    )

    @field_validator("workers")
    @classmethod
    def _somebody_works(cls, workers: tuple[WorkerSpec, ...]) -> tuple[WorkerSpec, ...]:
        if not workers:
            raise ValueError("expected one worker at least")
        return workers

    @model_validator(mode="after")
    def _names_and_ports_are_unique(self) -> Self:
        problems = name_problems(self.workers)
        by_port: dict[int, str] = {}
        for owner, process in self.listening():
            count = process.replicas if isinstance(process, WorkerSpec) else 1
            for port in range(process.port, process.port + count):
                first_owner = by_port.setdefault(port, owner)
                if first_owner != owner:
                    problems.append(f"{owner}.port: {port} is also the port of {first_owner}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def listening(self) -> Iterator[tuple[str, ListeningProcess]]:
        """Each process with its place in the file, in the order in which they are started."""
        yield "controller", self.controller
        for index, worker in enumerate(self.workers):
            yield f"workers[{index}]", worker
        if self.web is not None:
            yield "web", self.web
