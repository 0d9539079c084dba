"""The event loop of the engine's tests."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
