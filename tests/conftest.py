"""Fixtures of several folders of tests."""

import signal

from tests.demo_fleet import demo_fleet

__all__ = ["demo_fleet"]


def pytest_configure() -> None:
    """Lets Ctrl-C reach the processes under test.

    A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
