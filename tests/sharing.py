"""How the tests are shared out over processes: what stays together, what begins first.

A file stays in one process, and so do the files that share something dear.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

# One demo fleet serves all of these; a test that uses it elsewhere would start a second one.
_OF_THE_DEMO_FLEET = (
    "tests/fleet/test_demo_fleet.py",
    "tests/fleet/test_readme.py",
    "tests/terminal/test_clients_page.py",
    "tests/terminal/test_tutorial.py",
    "tests/browser/test_demo.py",
)
_TOGETHER = {
    **dict.fromkeys(_OF_THE_DEMO_FLEET, "the demo fleet"),
    "tests/browser/": "one Chromium and one page",
}
# What takes longest begins first, so that no process is left alone with it at the end.
_FIRST = (
    *_OF_THE_DEMO_FLEET,
    "tests/fleet/test_on_ray.py",
    "tests/browser/",
    "tests/fleet/test_kills.py",
    "tests/fleet/",
    "tests/worker/",
    "tests/checkpoint/",
    "tests/engine/",
)


def scope_of(nodeid: str) -> str:
    """The tests of one scope run in one process, one after another."""
    file = nodeid.partition("::")[0]
    found = (scope for start, scope in _TOGETHER.items() if file.startswith(start))
    return next(found, file)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which processes take them."""

    def rank(item: pytest.Item) -> int:
        ranks = (rank for rank, start in enumerate(_FIRST) if item.nodeid.startswith(start))
        return next(ranks, len(_FIRST))

    return sorted(items, key=rank)


def check_scopes(items: Sequence[pytest.Item]) -> None:
    """Holds the table of those that share the demo fleet to what they ask for.

    Raises:
        UsageError: a test uses the fixture, and its file is not in the table.
    """
    for item in items:
        is_user = "demo_fleet" in getattr(item, "fixturenames", ())
        if is_user and not item.nodeid.startswith(_OF_THE_DEMO_FLEET):
            raise pytest.UsageError(
                f"{item.nodeid} uses demo_fleet: add its file to tests/sharing.py, or in a "
                "parallel run it starts a second one"
            )


class Scheduling(LoadScopeScheduling):
    """Hands whole scopes to processes, in the order in which the tests were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
