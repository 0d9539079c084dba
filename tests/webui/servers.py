"""Servers on real ports, in a thread or a process, so that tests can stream and hang up."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

import httpx
from starlette.types import ASGIApp

from controller.chassis.serve import Server, listen
from tests.ports import free_port


class ThreadedServer:
    """An application on a port of 127.0.0.1, between ``with`` and its end."""

    def __init__(self, app: ASGIApp, *, port: int = 0) -> None:
        self._socket: socket.socket = listen("127.0.0.1", port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = Server(app, grace_seconds=1)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> ThreadedServer:
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=60)
        self._socket.close()
        assert not self._thread.is_alive(), "the server did not stop"


def eventually(condition: Callable[[], object], *, seconds: float = 60.0, what: str = "") -> None:
    """Waits until ``condition()`` is true.

    The limit is reached in failure alone, so it is one that a busy machine keeps.

    Raises:
        AssertionError: it was not, for so long.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.01)


@contextmanager
def web_process(
    controller_url: str, *flags: str, log: IO[bytes] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The page as its own process: its address, and the process, which is ended afterwards.

    Args:
        controller_url: where its controller answers.
        flags: further ones.
        log: where what it prints goes; None: to this process's own.
    """
    port = free_port()
    command = [sys.executable, "-m", "webui", "--controller-url", controller_url]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        own = [] if "--data-dir" in flags else ["--data-dir", folder]
        process = subprocess.Popen([*command, "--port", str(port), *own, *flags], stderr=log)
        try:
            eventually(lambda: answers(url, process), seconds=250, what="the page answers")
            yield url, process
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def answers(url: str, process: subprocess.Popen[Any]) -> bool:
    """Whether the page answers by now; fails if its process has ended."""
    assert process.poll() is None, "the page's server has ended"
    try:
        return httpx.get(url + "/health", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
