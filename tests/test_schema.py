"""What the OpenAPI documents allow, and what they do not, is never answered with a 5xx."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from tests.controller.conftest import running_controller
from tests.worker.servers import running_worker

# Few examples an operation: what breaks a parser breaks it soon, and this runs with every change.
FEW = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@asynccontextmanager
async def a_worker() -> AsyncIterator[str]:
    async with running_worker() as running:
        yield running.url


@asynccontextmanager
async def a_controller() -> AsyncIterator[str]:
    async with (
        running_controller() as fleet,
        running_worker(controllers=(fleet.url,), heartbeat_seconds=1),
    ):
        while not fleet.registry.models().data:  # noqa: ASYNC110  # its worker's beat
            await asyncio.sleep(0.01)
        yield fleet.url


@contextmanager
def in_a_thread(server: Callable[[], AbstractAsyncContextManager[str]]) -> Iterator[str]:
    """A server on a loop of its own: schemathesis asks and waits."""
    started, stop = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with server() as url:
            found.append(url)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(60)
        yield found[0]
    finally:
        stop.set()
        thread.join()


def ask_everything(url: str) -> int:
    """Sends each operation requests made from its own description; how many operations."""
    count = 0
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        count += 1

        @FEW
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=[not_a_server_error], timeout=60)

        ask()
    return count


# The servers' threads draw from the random module, which Hypothesis takes for a strategy's doing.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize(
    ("server", "least"), [(a_controller, 20), (a_worker, 15)], ids=["controller", "worker"]
)
def test_nothing_that_a_document_describes_is_answered_with_a_5xx(
    server: Callable[[], AbstractAsyncContextManager[str]], least: int
) -> None:
    with in_a_thread(server) as url:
        assert ask_everything(url) >= least
