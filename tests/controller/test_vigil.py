"""When a worker counts as hung: only if it neither beats nor makes progress."""

from __future__ import annotations

import asyncio

import pytest

from controller.registry import Registry
from controller.vigil import GIVE_UP_BEATS, HungError, Vigil
from controller.worker_record import WorkerRecord
from tests.controller.test_registry import Clock, said_by

pytestmark = pytest.mark.anyio


class Scene:
    """A request that waits for a worker, on a clock that only moves when told to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = Registry(clock=self.clock, wall_clock=lambda: 0.0)
        self.vigil = Vigil(clock=self.clock)
        self.registry.register(said_by())
        self.record: WorkerRecord = self.registry.rotation("demo")[0]
        self.may_move = True
        self.progress = lambda: None

    async def wait(self) -> None:
        with self.vigil.watch(self.record, may_move=lambda: self.may_move) as progress:
            self.progress = progress
            await asyncio.sleep(3600)

    async def is_over_after(self, *seconds: float, beating: bool = False) -> bool:
        """Lets time pass in steps, with a check after each."""
        for step in seconds:
            self.clock.now += step
            if beating:
                self.registry.heartbeat(said_by())
            self.vigil.check()
            for _ in range(3):
                await asyncio.sleep(0)
        return self.task.done()

    async def __aenter__(self) -> Scene:
        self.task = asyncio.create_task(self.wait())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_a_silent_worker_is_left_within_two_beats_when_another_can_answer() -> None:
    async with Scene() as scene:
        assert not await scene.is_over_after(1.9)
        assert await scene.is_over_after(0.2)
        with pytest.raises(HungError, match="missed its heartbeats"):
            scene.task.result()


async def test_a_slow_worker_that_beats_is_never_cut() -> None:
    async with Scene() as scene:
        assert not await scene.is_over_after(*[1.0] * 600, beating=True)


async def test_a_worker_that_makes_progress_is_not_cut_though_its_heartbeats_are_lost() -> None:
    async with Scene() as scene:
        for _ in range(60):
            scene.progress()
            assert not await scene.is_over_after(1.0)


async def test_where_nobody_else_could_answer_patience_is_longer_but_ends() -> None:
    async with Scene() as scene:
        scene.may_move = False
        assert not await scene.is_over_after(GIVE_UP_BEATS - 0.1)
        assert await scene.is_over_after(0.2)
        with pytest.raises(HungError):
            scene.task.result()


async def test_a_cancelled_wait_is_cancelled_and_nothing_else() -> None:
    async with Scene() as scene:
        scene.task.cancel()
        await asyncio.wait({scene.task})
        assert scene.task.cancelled()


async def test_patience_follows_the_interval_that_the_worker_declared() -> None:
    async with Scene() as scene:
        scene.registry.heartbeat(said_by(heartbeat_seconds=15))
        assert not await scene.is_over_after(29.0)
        assert await scene.is_over_after(2.0)
