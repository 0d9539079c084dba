"""Ends a piece of work when its client hangs up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive


class HangUp:
    """``async with HangUp(receive):`` cancels the block once the client is gone.

    Raw ASGI has nobody to watch the client, so this does. The block ends early, its ``finally``
    clauses and context managers run, and the code after it goes on with ``happened`` set; any
    other cancellation goes through. It is tied to this request's ``receive`` and to the task that
    entered it, never to a connection that others may use. The request's body must have been read.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.happened = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("HangUp works inside a task")
        self._task = task
        self._cancellations_before = task.cancelling()
        self._watch = asyncio.create_task(self._watch_client())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watch.cancel()
        if not self.happened:
            return False
        others = self._task.uncancel() > self._cancellations_before
        return kind is asyncio.CancelledError and not others

    async def _watch_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.happened = True
        self._task.cancel()
