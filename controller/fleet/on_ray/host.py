"""A worker's actor: where Ray puts it, there the worker runs. It starts anew with each restart."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import uuid
from collections import deque
from typing import Final

import ray
from pydantic import BaseModel, TypeAdapter

from controller.fleet.on_ray.fitting import for_node
from controller.fleet.on_ray.messages import Condition, News, Order, Said, Tending
from controller.fleet.restart import ProcessState

# Lines that are kept for a supervisor that does not ask for a while.
_KEPT_LINES: Final = 2000

# A question is answered after this, also where nothing happened.
_PATIENCE_SECONDS: Final = 10.0

# Lines that come together are told together.
_GATHER_SECONDS: Final = 0.05

_TOLD: Final[TypeAdapter[Said | Condition]] = TypeAdapter(Said | Condition)


class WorkerHost:
    """The actor; Ray makes one for each worker.

    Args:
        tending: what is to run.
        is_reached: whether it has to be reached at the node's address by other machines.
    """

    def __init__(self, tending: Tending, *, is_reached: bool) -> None:
        self._life = uuid.uuid4().hex
        address: str = ray.util.get_node_ip_address()
        context = ray.get_runtime_context()
        # Several nodes can be one machine; as `ray status` has them, these are told apart.
        self._node = f"{address} (node {context.get_node_id()[:8]})"
        self._said: deque[tuple[int, Said]] = deque(maxlen=_KEPT_LINES)
        self._count = 0  # what happened in this life so far
        self._forgotten = 0  # the number of the last line that is not kept any more
        self._condition: Condition | None = None
        self._happened = asyncio.Event()
        self._ended = asyncio.Event()
        self._is_stopping = False
        self._loop = asyncio.get_running_loop()
        gpus = context.get_accelerator_ids()["GPU"]
        plan = for_node(tending.plan, address=address if is_reached else None, gpus=gpus)
        self._tender = subprocess.Popen(
            [sys.executable, "-P", "-m", "controller.fleet.on_ray.tender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._write(tending.model_copy(update={"plan": plan}))
        threading.Thread(target=self._read, name="tender", daemon=True).start()

    async def news(self, life: str, after: int) -> News:
        """What happened, as soon as something does.

        Args:
            life: the life that the supervisor knows; of another one, all is news.
            after: the `until` of the last news.
        """
        after = after if life == self._life else 0
        if self._count <= after:
            self._happened.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._happened.wait(), _PATIENCE_SECONDS)
            await asyncio.sleep(_GATHER_SECONDS)
        return News(
            life=self._life,
            node=self._node,
            until=self._count,
            said=tuple(said for number, said in self._said if number > after),
            has_gap=self._forgotten > after,
            condition=self._condition,
        )

    async def tell(self, order: Order) -> None:
        """Passes an order on."""
        self._is_stopping = self._is_stopping or order.word != "ready"
        await asyncio.to_thread(self._write, order)

    async def ended(self) -> None:
        """Returns once nothing runs any more."""
        await self._ended.wait()

    def _write(self, message: BaseModel) -> None:
        assert self._tender.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):  # it has ended; the reader sees that
            self._tender.stdin.write(message.model_dump_json().encode() + b"\n")
            self._tender.stdin.flush()

    def _read(self) -> None:
        """What the tender tells; on a thread of its own."""
        assert self._tender.stdout is not None  # noqa: S101 - it was asked for
        for line in self._tender.stdout:
            self._loop.call_soon_threadsafe(self._take, line)
        self._tender.wait()  # its first half, which ended at once
        self._loop.call_soon_threadsafe(self._see_end)

    def _take(self, line: bytes) -> None:
        told = _TOLD.validate_json(line)
        self._count += 1
        if isinstance(told, Condition):
            self._condition = told
        else:
            if len(self._said) == _KEPT_LINES:
                self._forgotten = self._said[0][0]
            self._said.append((self._count, told))
        self._happened.set()

    def _see_end(self) -> None:
        condition = self._condition
        if not self._is_stopping and (
            condition is None or condition.state is not ProcessState.GIVEN_UP
        ):
            # Somebody killed it. Ended so, and not by an exception, the actor is started again.
            os._exit(1)
        self._ended.set()
        self._happened.set()
