"""A fork server of a fleet: a process that has imported what workers need, and forks them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from controller.fleet.adopted import Adopted
from controller.fleet.child import Child
from controller.fleet.groups import ProcessGroups
from controller.protocol.forking import MAX_REPLY_BYTES, ForkReply, ForkRequest

# Room for the command lines of the workers, in place of its own: see worker/process_title.py.
# Linux shows no more than a page of those.
_ROOM: Final = "." * 4000

COMMAND: Final = (sys.executable, "-m", "worker.fork_server", _ROOM)

# Importing from a slow disk, beside others who do, takes a while; what takes longer hangs.
_PATIENCE_SECONDS: Final = 180.0


class ForkServerError(Exception):
    """There is no process, and why; one that is started by itself may do."""


class ForkServer:
    """A running fork server. Made by `start`.

    Its processes are this one's children, by adoption, and live on without it.
    """

    def __init__(self, child: Child, control: socket.socket, groups: ProcessGroups) -> None:
        self._child = child
        self._control = control
        self._groups = groups
        self._sending = asyncio.Lock()
        self._asking: set[asyncio.Task[Child]] = set()
        self._ended = asyncio.create_task(child.wait())
        self.has_forked = False

    @classmethod
    async def start(
        cls,
        *,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        groups: ProcessGroups,
        command: Sequence[str] = COMMAND,
    ) -> ForkServer:
        """Starts one; it begins to import when the first process is asked for.

        Args:
            env: its whole environment.
            on_line: is given each line that it writes.
            groups: is told of its process group, and of those of its processes.
            command: what runs it.

        Raises:
            OSError: the system would not start it.
        """
        # Whole messages, each with its descriptors.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                child = await Child.start(
                    command, env=env, on_line=on_line, groups=groups, stdin=theirs.fileno()
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return cls(child, ours, groups)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._ended.done()

    async def fork(
        self, args: Sequence[str], *, env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Child:
        """A process that it forks. Cancelled, whatever comes of it is stopped.

        Args:
            args: what would follow ``python -m worker``.
            env: its whole environment.
            on_line: is given each line that it writes.

        Raises:
            ForkServerError: there is none.
        """
        asking = asyncio.create_task(self._ask(args, env, on_line))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_dismiss)
            raise

    async def close(self) -> None:
        """Ends it. It holds nothing: it is killed."""
        self._child.kill()
        await self._ended
        await asyncio.gather(*self._asking, return_exceptions=True)  # they have seen it end
        self._control.close()

    async def _ask(
        self, args: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Child:
        request = ForkRequest(args=tuple(args), environ=dict(env)).model_dump_json().encode()
        with contextlib.ExitStack() as on_failure:
            try:
                output, its_output = os.pipe()
                on_failure.callback(os.close, output)
                with os.fdopen(its_output, "wb"), contextlib.ExitStack() as theirs:
                    answers, its_answers = socket.socketpair()
                    theirs.enter_context(its_answers)
                    on_failure.enter_context(answers)
                    await self._send(request, (its_output, its_answers.fileno()))
                reader, writer = await asyncio.open_unix_connection(
                    sock=answers, limit=MAX_REPLY_BYTES
                )
                on_failure.callback(writer.close)
                process = Adopted(await self._pid(reader))
            except OSError as exc:
                raise ForkServerError(str(exc)) from exc
            on_failure.pop_all()
        child = Child.follow(process, output, on_line=on_line, groups=self._groups)
        # From here on it is stopped with all others, whatever happens: it may begin.
        writer.write(b"\n")
        writer.close()
        self.has_forked = True
        return child

    async def _send(self, request: bytes, descriptors: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        async with self._sending:
            while True:
                try:
                    socket.send_fds(self._control, [request], descriptors)
                except BlockingIOError:  # it has many to fork before this one
                    writable = asyncio.Event()
                    loop.add_writer(self._control, writable.set)
                    try:
                        await writable.wait()
                    finally:
                        loop.remove_writer(self._control)
                else:
                    return

    async def _pid(self, reader: asyncio.StreamReader) -> int:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                line = await reader.readline()
        except TimeoutError as exc:
            self._child.kill()
            raise ForkServerError(
                f"the fork server has not answered for {_PATIENCE_SECONDS:g} s, and was killed"
            ) from exc
        if not line:
            raise ForkServerError("the fork server has ended")
        try:
            reply = ForkReply.model_validate_json(line)
        except ValidationError as exc:
            raise ForkServerError(f"the fork server answered {line[:80]!r}") from exc
        if reply.error:
            raise ForkServerError(reply.error)
        return reply.pid


def _dismiss(asking: asyncio.Task[Child]) -> None:
    """Nobody wants the process any more."""
    if not asking.cancelled() and asking.exception() is None:
        asking.result().kill()  # and it is waited for by itself
