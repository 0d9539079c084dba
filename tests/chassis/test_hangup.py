"""Work that ends when its client hangs up, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.chassis.hangup import HangUp

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Client:
    """The receiving half of an ASGI connection."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        return await self.messages.get()

    def hang_up(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


async def test_work_ends_when_the_client_hangs_up_and_its_cleanup_runs() -> None:
    client = Client()
    cleaned_up = False
    asyncio.get_running_loop().call_later(0.01, client.hang_up)
    async with HangUp(client.receive) as hang_up:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned_up = True
    assert hang_up.happened
    assert cleaned_up
    await asyncio.sleep(0)  # the task itself goes on


async def test_work_that_is_done_is_left_alone() -> None:
    client = Client()
    async with HangUp(client.receive) as hang_up:
        await asyncio.sleep(0)
    client.hang_up()
    await asyncio.sleep(0.01)
    assert not hang_up.happened


async def test_an_error_of_the_work_goes_through() -> None:
    with pytest.raises(KeyError):
        async with HangUp(Client().receive):
            raise KeyError


async def test_a_cancellation_by_somebody_else_goes_through() -> None:
    async def work() -> None:
        async with HangUp(Client().receive):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_still_cancel_the_task() -> None:
    client = Client()

    async def work() -> None:
        async with HangUp(client.receive):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    client.hang_up()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_rest_of_a_body_is_not_a_hang_up() -> None:
    client = Client()
    client.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    async with HangUp(client.receive) as hang_up:
        await asyncio.sleep(0.01)
    assert not hang_up.happened
