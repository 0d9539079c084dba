"""Ends a piece of work when its client hangs up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive, Scope

from controller.chassis.http_server import CLIENT


class HangUp:
    """``async with HangUp(receive, scope):`` cancels the block once the client is gone.

    Raw ASGI has nobody to watch the client, so this does. The block ends early, its ``finally``
    clauses and context managers run, and the code after it goes on with ``happened`` set; any
    other cancellation goes through. It is tied to this request's ``receive`` and to the task that
    entered it, never to a connection that others may use. The request's body must have been read.

    Args:
        receive: the request's.
        scope: likewise; with it our own server tells of the hang-up itself, where a task that
            waits for `receive` costs as much as a short request's parsing.
    """

    def __init__(self, receive: Receive, scope: Scope | None = None) -> None:
        self._receive = receive
        self._client = None if scope is None else scope.get("extensions", {}).get(CLIENT)
        self._watch: asyncio.Task[None] | None = None
        self.happened = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("HangUp works inside a task")
        self._task = task
        self._cancellations_before = task.cancelling()
        if self._client is None:
            self._watch = asyncio.create_task(self._watch_client())
        elif self._client.disconnected:
            self._end()
        else:
            self._client.on_hang_up = self._end
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._watch is not None:
            self._watch.cancel()
        elif self._client is not None:
            self._client.on_hang_up = None
        if not self.happened:
            return False
        others = self._task.uncancel() > self._cancellations_before
        return kind is asyncio.CancelledError and not others

    async def _watch_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end()

    def _end(self) -> None:
        self.happened = True
        self._task.cancel()
