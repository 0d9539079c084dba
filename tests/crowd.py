"""Many clients, some of them at once."""

import asyncio
from collections.abc import Awaitable, Callable


async def crowd(client: Callable[[], Awaitable[None]], *, count: int, at_once: int) -> None:
    """Returns once so many clients have come and gone."""
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            await client()

    async with asyncio.TaskGroup() as clients:
        for _ in range(at_once):
            clients.create_task(one_after_another())
