"""The supervisor's control socket: one JSON line asks, JSON lines answer.

Whoever can open the socket commands the fleet: it lies in a folder of mode 0700, itself 0600.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError

from controller.fleet.fleet_file import FleetFileError
from controller.fleet.log_book import LogBook
from controller.fleet.place import PlaceError
from controller.fleet.section import Section
from controller.fleet.state_dir import STATE_VARIABLE, StateDirError

_log = logging.getLogger(__name__)

MAX_LINE_BYTES = 1 << 20


class Request(Section):
    """What is asked of a running supervisor."""

    command: Literal["apply", "stop", "scale", "logs", "look"]
    name: str = ""  # scale, logs: the process
    replicas: int = 1  # scale
    now: bool = False  # stop: without a grace
    follow: bool = False  # logs: also what is still to come
    lines: int = 100  # logs: how many of the past ones
    check_memory: bool = True  # apply
    wait_for_nodes: bool = False  # apply
    place: str = ""  # apply: where the fleet is taken to run, if that was said


class Reply(Section):
    """A line of the answer; `done` and `error` end it."""

    kind: Literal["line", "done", "error"]
    text: str = ""


class RefusedError(Exception):
    """A request cannot be met; the message says why, in as many lines as it takes."""


class Commanded(Protocol):
    """What the socket commands."""

    logs: LogBook

    async def apply(self, *, check_memory: bool, wait_for_nodes: bool, place: str) -> str:
        """Takes over the fleet file as it is now, and says what that changed."""
        ...

    async def scale(self, name: str, replicas: int) -> str:
        """Runs a worker so many times, and says what that changed."""
        ...

    def stop(self, *, now: bool) -> None:
        """Stops the fleet."""
        ...

    def names(self, name: str) -> list[str]:
        """The processes of a name, its replicas included; empty if there are none."""
        ...

    @property
    def controller_url(self) -> str:
        """Where its controller is reached."""
        ...

    def troubles(self) -> list[str]:
        """A line for each process that does not run, and why."""
        ...


class ControlServer:
    """Listens while a fleet runs. An asynchronous context manager.

    Args:
        path: where the socket is made.
        fleet: what it commands.
    """

    def __init__(self, path: Path, fleet: Commanded) -> None:
        self._path = path
        self._fleet = fleet
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> ControlServer:
        """Listens.

        Raises:
            StateDirError: there can be no socket at the path.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(listening, self._path)
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(
                self._accept, sock=listening, limit=MAX_LINE_BYTES
            )
        except BaseException:
            listening.close()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Ends every connection: whoever waits for the fleet's end sees it so."""
        assert self._server is not None  # noqa: S101 - entered before it is left
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if not line:
                return
            try:
                await self._answer(Request.model_validate_json(line), reader, writer)
            except ValidationError as exc:
                await _send(writer, Reply(kind="error", text=f"not a request: {exc}"))
            except (RefusedError, FleetFileError, PlaceError) as exc:
                await _send(writer, Reply(kind="error", text=str(exc)))
        except (ConnectionError, ValueError) as exc:  # it hung up, or sent a line without an end
            _log.debug("a control connection ended: %s", exc)
        except Exception:  # noqa: BLE001 - the edge of a task; the supervisor has to go on
            _log.exception("a control request failed")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        text = ""
        if request.command == "apply":
            text = await self._fleet.apply(
                check_memory=request.check_memory,
                wait_for_nodes=request.wait_for_nodes,
                place=request.place,
            )
        elif request.command == "scale":
            text = await self._fleet.scale(request.name, request.replicas)
        elif request.command == "look":
            text = self._fleet.controller_url
            for line in self._fleet.troubles():
                await _send(writer, Reply(kind="line", text=line))
        elif request.command == "stop":
            self._fleet.stop(now=request.now)
            await reader.read()  # until either end of the connection is gone
            return
        else:
            await self._send_logs(request, reader, writer)
        await _send(writer, Reply(kind="done", text=text))

    async def _send_logs(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        names = self._fleet.names(request.name)
        if not names:
            known = ", ".join(self._fleet.names(""))
            raise RefusedError(f"no process is called {request.name!r}; there are {known}")
        logs = self._fleet.logs
        prefixed = len(names) > 1
        with logs.following(lambda name: name in self._fleet.names(request.name)) as follower:
            for name in names:
                for line in logs.tail(name, request.lines):
                    await _send(writer, _log_line(name, line, prefixed=prefixed))
            if not request.follow:
                return
            gone = asyncio.create_task(reader.read())
            try:
                while not gone.done():
                    coming = asyncio.create_task(follower.next())
                    await asyncio.wait({gone, coming}, return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        coming.cancel()
                        return
                    name, line = coming.result()
                    await _send(writer, _log_line(name, line, prefixed=prefixed))
            finally:
                gone.cancel()


def _bind(listening: socket.socket, path: Path) -> None:
    try:
        listening.bind(str(path))
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise StateDirError(
            f"{path} cannot be a socket ({reason}); name another folder, of a short path, in "
            f"{STATE_VARIABLE}"
        ) from exc


def _log_line(name: str, line: str, *, prefixed: bool) -> Reply:
    return Reply(kind="line", text=f"{name} | {line}" if prefixed else line)


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(reply.model_dump_json().encode() + b"\n")
    await writer.drain()
