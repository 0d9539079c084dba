"""One process of a fleet, in a process group of its own, with its output read line by line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from controller.fleet.groups import ProcessGroups
from controller.fleet.lines import LineSplitter

_READ_BYTES = 65_536

# How long what is left of a killed group may take to be gone.
_REAP_SECONDS = 1.0
_REAP_LOOK_SECONDS = 0.01


class Process(Protocol):
    """A child of this process, however it became one."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    async def wait(self) -> int:
        """Its exit status, once it has ended; negative for a signal."""
        ...


class Child:
    """A running process. Made by `start` or `follow`.

    A group of its own keeps a terminal's Ctrl-C away from it (stopping has an order), and lets
    whatever it started be stopped with it.
    """

    def __init__(self, process: Process, output: asyncio.Task[None], groups: ProcessGroups) -> None:
        self._process = process
        self._output = output
        self._groups = groups
        self._ended = asyncio.create_task(self._see_out())

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        groups: ProcessGroups,
        stdin: int = asyncio.subprocess.DEVNULL,
    ) -> Child:
        """Starts a process.

        Args:
            argv: the command.
            env: its whole environment.
            on_line: is given each line that it writes to standard output or standard error.
            groups: is told of its process group.
            stdin: a descriptor of what it reads; nothing by default.

        Raises:
            OSError: the system would not start it.
        """
        # A pipe of our own: asyncio's would tie the wait for the process to the end of its output,
        # which a grandchild can keep open.
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin,
                stdout=write_end,
                stderr=write_end,
                env=dict(env),
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        return cls.follow(process, read_end, on_line=on_line, groups=groups)

    @classmethod
    def follow(
        cls,
        process: Process,
        output: int,
        *,
        on_line: Callable[[str], None],
        groups: ProcessGroups,
    ) -> Child:
        """A process that runs already and leads its process group.

        Args:
            process: a child of this process.
            output: the descriptor that its output is read from; closed at its end.
            on_line: is given each line of that.
            groups: is told of its process group.
        """
        groups.add(process.pid)
        reading = asyncio.create_task(_read_lines(output, on_line))
        return cls(process, reading, groups)

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        return self._process.pid

    async def wait(self) -> int:
        """Waits for its end and its last line; whatever it left behind in its group is killed.

        Returns:
            Its exit status; negative for a signal, as in `subprocess`.
        """
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_seconds: float, hurry: asyncio.Event) -> int:
        """Asks it to stop, and kills it once the grace has passed or ``hurry`` is set.

        Returns:
            Its exit status, as `wait` does.
        """
        self._signal(signal.SIGTERM)
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            {self._ended, hurried}, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        if not self._ended.done():
            self._signal(signal.SIGKILL)
        return await self.wait()

    def kill(self) -> None:
        """Ends it and what it started at once."""
        self._signal(signal.SIGKILL)

    async def _see_out(self) -> int:
        status = await self._process.wait()
        self._signal(signal.SIGKILL)
        await self._reap()
        self._groups.remove(self.pid)
        await self._output
        return status

    async def _reap(self) -> None:
        """What it had started is this process's own, where that adopts orphans: zombies else."""
        for _ in range(int(_REAP_SECONDS / _REAP_LOOK_SECONDS)):
            try:
                while os.waitpid(-self.pid, os.WNOHANG) != (0, 0):  # noqa: ASYNC222 - it returns at once
                    pass
            except ChildProcessError:  # none is left
                return
            await asyncio.sleep(_REAP_LOOK_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


async def _read_lines(descriptor: int, on_line: Callable[[str], None]) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader),
        os.fdopen(descriptor, "rb", buffering=0),
    )
    splitter = LineSplitter()
    try:
        while data := await reader.read(_READ_BYTES):
            for line in splitter.feed(data):
                on_line(line)
        for line in splitter.flush():
            on_line(line)
    finally:
        transport.close()
