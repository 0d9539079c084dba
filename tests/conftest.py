"""Fixtures of several folders of tests."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.demo_fleet import demo_fleet

__all__ = ["demo_fleet"]


def pytest_configure() -> None:
    """Lets Ctrl-C reach the processes under test.

    A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what processes under test write for good out of the home of who runs the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before
