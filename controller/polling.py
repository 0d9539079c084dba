"""Asks servers that do not beat by themselves: once, and again and again for as long as needed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping

from controller.upstream import LostError, UnreachableError, Upstream


class PollError(Exception):
    """A server did not answer as it should; the message says why."""


async def ask(
    upstream: Upstream,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    patience_seconds: float,
    max_bytes: int,
) -> bytes:
    """The body of a server's answer.

    Raises:
        PollError: it did not answer in time, not with 200, or with more than ``max_bytes``.
    """
    try:
        async with (
            asyncio.timeout(patience_seconds),
            upstream.request(method, url, headers=headers, body=body) as answer,
        ):
            found = await answer.read_all(max_bytes)
    except (UnreachableError, LostError) as exc:
        raise PollError(str(exc)) from exc
    except TimeoutError as exc:
        raise PollError(f"it did not answer within {patience_seconds:g} s") from exc
    if answer.status != 200:
        raise PollError(f"{method} {url} was answered with status {answer.status}")
    return found


class Polls:
    """Tasks that go on asking, by name; one a name."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, asking: Coroutine[None, None, None]) -> None:
        """Begins one; another one of this name ends."""
        self.stop(name)
        self._tasks[name] = asyncio.create_task(asking)

    def stop(self, name: str) -> None:
        """Ends one, if it is there."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def end(self) -> None:
        """Ends all, and waits until they have."""
        tasks = [*self._tasks.values()]
        for name in [*self._tasks]:
            self.stop(name)
        await asyncio.gather(*tasks, return_exceptions=True)
