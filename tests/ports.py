"""Ports for processes under test, which bind them some time after they were drawn."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below those that the system gives away: no connection or server of another test can take one
# before its process does. Each process of a parallel run draws from a part of its own.
_FIRST = 22_000
_PART = 1_250
_PARTS = 8
# A fleet's replicas have the ports behind their worker's.
_STEP = 4


def _candidates() -> itertools.cycle[int]:
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    first = _FIRST + part * _PART
    ports = list(range(first, first + _PART, _STEP))
    start = random.randrange(len(ports))  # another run may be on this machine
    return itertools.cycle(ports[start:] + ports[:start])


_candidates_left = _candidates()


def free_port() -> int:
    """A port that nobody listens on, and that was not drawn for long; those behind it are not."""
    for port in _candidates_left:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("there is always a next candidate")


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    return [free_port() for _ in range(count)]
