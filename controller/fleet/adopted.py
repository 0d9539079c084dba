"""A process that became this one's child because its parent ended. Linux only."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys

# <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36


def become_adopter() -> bool:
    """Makes orphans among this process's descendants its children; False where that cannot be.

    Whoever calls this has to wait for them: `Adopted` does for one, `Child` for what is left of a
    process group.
    """
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
        status: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):  # an old kernel, or a sandbox that knows neither
        return False
    return status == 0


class Adopted:
    """A child by adoption, as `controller.fleet.child` waits for one.

    Args:
        pid: its process id.

    Raises:
        OSError: there is no such process, or no descriptor left.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    async def wait(self) -> int:
        """Waits for its end, once.

        Returns:
            Its exit status; negative for a signal, as in `subprocess`.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222 - it has ended
        return os.waitstatus_to_exitcode(status)
