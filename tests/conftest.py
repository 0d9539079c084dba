"""Fixtures of several folders of tests, and how the tests are run."""

import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from controller.chassis.collecting import kept_from_collector
from tests.demo_fleet import demo_fleet
from tests.sharing import Scheduling, check_scopes, longest_first

__all__ = ["demo_fleet"]

# Tests of these marks, folders and files watch real processes on a machine that may have other
# work: one that fails is run once more, and the summary tells of it. CONTRIBUTING.md says what
# that means.
_TRIED_AGAIN = ("browser", "fleet")
_TRIED_AGAIN_FILE = "test_process.py"


def pytest_configure() -> None:
    """Lets Ctrl-C reach the processes under test, and no example be measured with a clock.

    A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    current = settings.get_profile(settings.get_current_profile_name())
    settings.register_profile("untimed", current, deadline=None)
    settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports all that is tested without Python's collector: of 20 s of a processor it takes 7."""
    with kept_from_collector():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Orders the tests of a parallel run, and marks those that may be run once more."""
    check_scopes(items)
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items)
    for item in items:
        is_tried_again = (
            any(item.get_closest_marker(name) for name in _TRIED_AGAIN)
            or item.path.parent.name in _TRIED_AGAIN
            or item.path.name == _TRIED_AGAIN_FILE
        )
        if is_tried_again:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Keeps together what shares something dear."""
    return Scheduling(config, log)


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


@pytest.fixture(autouse=True)
def _own_signal_handlers() -> Iterator[None]:
    """Leaves Ctrl-C as it was: of two servers in one process, the first to end takes it over."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
