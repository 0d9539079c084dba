"""Kills a fleet's process groups once its supervisor is gone, however that went.

Run by the supervisor as ``python -m controller.fleet.guard``. It reads ``+<group>`` and
``-<group>`` lines from its standard input; the pipe ends when the supervisor does, ``kill -9``
included, and whatever group is still on the list then is killed. A pipe does this on every POSIX
system, and for grandchildren, which Linux's parent-death signal would leave alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def survivors(lines: Iterable[str]) -> set[int]:
    """The process groups that were announced and not withdrawn."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def main() -> None:
    """Waits for the end of standard input, then kills what is left."""
    # Stopping is the supervisor's business, also where a whole control group is signalled.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for group in survivors(sys.stdin):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
