"""Runs an ASGI application on a socket, until a signal asks it to stop."""

from __future__ import annotations

import errno
import importlib.metadata
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from controller.chassis.http_server import HttpServerProtocol
from controller.chassis.settings import ProcessSettings

# Of uvicorn, those with which `http_server` was tested: it takes the place of methods that are
# uvicorn's own. As in pyproject.toml.
UVICORN_FROM = (0, 48)
UVICORN_BELOW = (0, 55)


class ListenError(Exception):
    """The address cannot be listened on; the message says why and what to do."""


class UvicornVersionError(ListenError):
    """The installed uvicorn is not one that this server was built on."""


def check_uvicorn(version: str) -> None:
    """Refuses a uvicorn whose insides may be others: each request would fail, and say not why.

    Raises:
        UvicornVersionError: it is older or newer than those that are known.
    """
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not UVICORN_FROM <= found < UVICORN_BELOW:
        wanted = f"uvicorn>={_dotted(UVICORN_FROM)},<{_dotted(UVICORN_BELOW)}"
        raise UvicornVersionError(
            f"uvicorn {version} is installed, which this version of Paragone does not know: "
            f"pip install '{wanted}'"
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is known before anything slow starts.

    Raises:
        ListenError: the port is taken, the address is not this machine's, or the installed uvicorn
            is none that could serve there.
    """
    check_uvicorn(importlib.metadata.version("uvicorn"))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise ListenError(
                f"port {port} on {host} is taken by another process; stop it (`ss -ltnp` names "
                f"it) or choose another with --port"
            ) from exc
        raise ListenError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    sock.set_inheritable(True)  # uvicorn hands it to its own server
    return sock


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application first that a stop was asked for.

    Args:
        app: the application.
        grace_seconds: how long open responses may go on after a stop was asked for.
        before_shutdown: awaited before the listener closes, e.g. to leave the controller's list.
        settings: of the process: certificates, and the proxies that are believed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_seconds: int = 30,
        before_shutdown: Callable[[], Awaitable[None]] | None = None,
        settings: ProcessSettings | None = None,
    ) -> None:
        trusted = () if settings is None else settings.trusted_proxies
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpServerProtocol,
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=grace_seconds,
                # Proxies and pools hold connections open longer than uvicorn's 5 s default.
                timeout_keep_alive=75,
                # uvicorn's own default believes whoever is on this machine.
                proxy_headers=bool(trusted),
                forwarded_allow_ips=list(trusted),
                ssl_certfile=None if settings is None else settings.tls_cert,
                ssl_keyfile=None if settings is None else settings.tls_key,
            )
        )
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leaves the fleet first, then closes the listener and waits for open responses."""
        if self._before_shutdown is not None:
            await self._before_shutdown()
        await super().shutdown(sockets)


def serve(server: Server, sock: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, and returns when open responses have ended. Blocks."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn's own handlers are there a moment later, and a stop that comes before is one too.
    # They raise the signal once more after a clean stop: the default would make the process look
    # killed then, where a supervisor wants to see that it drained.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    server.run(sockets=[sock])
