"""Waits for what another thread or process does."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Returns once the condition holds; a TimeoutError if it does not in time.

    The limit is reached in failure alone, so it is one that a busy machine keeps.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - other threads cannot set the loop's events
            await asyncio.sleep(0.002)
