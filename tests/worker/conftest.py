"""The event loop of the worker's tests: the one that the process runs on."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}
