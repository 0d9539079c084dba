"""The fork servers of a fleet: one for each environment that workers share, started on use.

A fork server that ends takes nothing with it: its processes run on. The next start that wants it
gets a new one; where one ended before it had forked anything, workers start by themselves from then
on, as they do where forking fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller.fleet.adopted import become_adopter
from controller.fleet.child import Child
from controller.fleet.fork_server import COMMAND, ForkServer, ForkServerError
from controller.fleet.forking import shared_environ
from controller.fleet.groups import ProcessGroups
from controller.fleet.reporter import Reporter

# What their lines are prefixed with.
NAME: Final = "fork-server"

_Key = frozenset[tuple[str, str]]


class ForkServers:
    """Forks processes. An asynchronous context manager; leaving it ends the fork servers.

    Args:
        groups: is told of process groups.
        reporter: is told what the fork servers say.
        command: what runs one.
    """

    def __init__(
        self, *, groups: ProcessGroups, reporter: Reporter, command: Sequence[str] = COMMAND
    ) -> None:
        self._groups = groups
        self._reporter = reporter
        self._command = command
        self._servers: dict[_Key, ForkServer] = {}
        self._hopeless: set[_Key] = set()
        self._starting = asyncio.Lock()
        self._adopts: bool | None = None  # not tried yet

    async def __aenter__(self) -> ForkServers:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for server in self._servers.values():
            await server.close()

    async def fork(
        self,
        name: str,
        args: Sequence[str],
        *,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> Child | None:
        """A forked worker; None where it has to be started by itself.

        Args:
            name: what the worker is called.
            args: what follows ``python -m worker``.
            env: its whole environment.
            on_line: is given each line that it writes.
        """
        key = frozenset(shared_environ(env).items())
        try:
            server = await self._server(key)
            return None if server is None else await server.fork(args, env=env, on_line=on_line)
        except (ForkServerError, OSError) as exc:
            self._reporter.alarm(name, f"is not forked, but started by itself: {exc}")
            return None

    async def _server(self, key: _Key) -> ForkServer | None:
        async with self._starting:
            server = self._servers.get(key)
            if server is not None and server.is_alive:
                return server
            if server is not None:
                await server.close()
                del self._servers[key]
                if not server.has_forked:
                    self._hopeless.add(key)
            if self._adopts is None:
                self._adopts = become_adopter()
            if not self._adopts or key in self._hopeless:
                return None
            server = await ForkServer.start(
                env=dict(key), on_line=self._show, groups=self._groups, command=self._command
            )
            self._servers[key] = server
            return server

    def _show(self, line: str) -> None:
        self._reporter.line(NAME, line)
