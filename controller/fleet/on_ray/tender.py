"""Runs a worker on its node, beside the actor that Ray placed there: ``python -m`` this.

Ray kills an actor's own children with SIGKILL when the actor ends. So the worker is none of them:
this process leaves the actor's family first, and when its input ends, because the actor did, the
worker is asked to stop, may finish its answers within the grace, and is killed only then. Its own
guard sees to the worker where this process is killed too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Final

from pydantic import BaseModel

from controller.fleet.groups import ProcessGroups
from controller.fleet.keeper import Keeper
from controller.fleet.on_ray.fitting import with_free_port
from controller.fleet.on_ray.messages import Condition, Order, Said, Tending

# A first line holds a whole environment.
_MAX_LINE_BYTES: Final = 1 << 20

# Lines that may wait for an actor that does not read; what comes beyond them is dropped.
_MAX_BACKLOG_BYTES: Final = 1 << 20

_LOOK_SECONDS: Final = 0.1

_FLUSH_SECONDS: Final = 2.0


class _Teller:
    """Writes to the actor, a JSON object a line. A reporter of the keeper's."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    def line(self, _name: str, text: str) -> None:
        if self._transport.get_write_buffer_size() < _MAX_BACKLOG_BYTES:
            self.tell(Said(kind="line", text=text))

    def alarm(self, _name: str, text: str) -> None:
        self.tell(Said(kind="alarm", text=text))

    def repeat(self, _name: str, text: str) -> None:
        self.tell(Said(kind="repeat", text=text))

    def tell(self, message: BaseModel) -> None:
        if not self._transport.is_closing():
            self._transport.write(message.model_dump_json().encode() + b"\n")

    async def close(self) -> None:
        """Waits until all is read, or nobody reads."""
        deadline = asyncio.get_running_loop().time() + _FLUSH_SECONDS
        while self._transport.get_write_buffer_size() and not self._transport.is_closing():
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        self._transport.close()


async def _tend() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=_MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    first = await orders.readline()
    if not first:
        return  # the actor ended before it said anything
    tending = Tending.model_validate_json(first)
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    teller = _Teller(transport)
    with ProcessGroups() as groups:
        keeper = Keeper(
            tending.plan,
            rule=tending.rule,
            reporter=teller,
            groups=groups,
            inherited=os.environ,
            fit=with_free_port,
        )
        others = [
            asyncio.create_task(_heed(orders, keeper, stop, hurry)),
            asyncio.create_task(_tell_conditions(keeper, teller)),
        ]
        await keeper.run(stop=stop, hurry=hurry, grace_seconds=tending.grace_seconds)
        for task in others:
            task.cancel()
    teller.tell(_condition(keeper))
    await teller.close()


async def _heed(
    orders: asyncio.StreamReader, keeper: Keeper, stop: asyncio.Event, hurry: asyncio.Event
) -> None:
    while line := await orders.readline():
        order = Order.model_validate_json(line)
        if order.word == "ready":
            if order.pid == keeper.pid:  # it may have ended since it was seen
                keeper.became_ready()
        else:
            stop.set()
            if order.word == "hurry":
                hurry.set()
    stop.set()


async def _tell_conditions(keeper: Keeper, teller: _Teller) -> None:
    told = None
    while True:
        if (condition := _condition(keeper)) != told:
            teller.tell(condition)
            told = condition
        await asyncio.sleep(_LOOK_SECONDS)


def _condition(keeper: Keeper) -> Condition:
    return Condition(
        state=keeper.state,
        pid=keeper.pid,
        url=keeper.url,
        reason=keeper.reason,
        restarts=keeper.restarts,
    )


def main() -> None:
    """Leaves the family of the process that started it, and runs what it is told to."""
    if os.fork():
        os._exit(0)
    os.setsid()
    asyncio.run(_tend())


if __name__ == "__main__":
    main()
