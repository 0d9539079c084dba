"""Listening sockets: a taken port is known, and said, before anything else happens."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from starlette.types import Receive, Scope, Send

from controller.chassis.serve import (
    UVICORN_BELOW,
    UVICORN_FROM,
    ListenError,
    Server,
    UvicornVersionError,
    check_uvicorn,
    listen,
    serve,
)


def test_port_0_is_a_free_port() -> None:
    with listen("127.0.0.1", 0) as sock:
        assert sock.getsockname()[1] > 0


def test_a_taken_port_names_itself_and_the_way_out() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"port {port} on 127.0.0.1 is taken") as caught:
            listen("127.0.0.1", port)
    assert "--port" in str(caught.value)


def test_an_address_of_another_machine_is_refused_with_the_reason() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0"):
        listen("192.0.2.1", 0)  # TEST-NET-1: nobody's


def test_a_port_can_be_used_again_right_after_its_process_ended() -> None:
    with listen("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        # The side that closes first leaves the port in TIME_WAIT.
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection, _ = first.accept()
            connection.close()
            assert client.recv(1) == b""
    with listen("127.0.0.1", port) as second:
        assert second.getsockname()[1] == port


@pytest.fixture
def handlers_kept() -> Iterator[None]:
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(each) for each in signals]
    yield
    for each, handler in zip(signals, before, strict=True):
        signal.signal(each, handler)


async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application that is never asked."""


@pytest.mark.usefixtures("handlers_kept")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_comes_before_uvicorn_looks_for_one_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, stop: signal.Signals
) -> None:
    has_drained = False

    async def drain() -> None:
        nonlocal has_drained
        has_drained = True

    server = Server(nothing, grace_seconds=1, before_shutdown=drain)

    def run(sockets: list[socket.socket]) -> None:
        os.kill(os.getpid(), stop)
        asyncio.run(server.serve(sockets=sockets))

    monkeypatch.setattr(server, "run", run)
    gave_up = threading.Event()

    def give_up() -> None:
        gave_up.set()
        server.should_exit = True

    late = threading.Timer(60, give_up)
    late.start()
    serve(server, listen("127.0.0.1", 0))
    late.cancel()
    assert has_drained
    assert not gave_up.is_set()


@pytest.mark.parametrize("version", ["0.47.0", "0.55.0", "1.0", "0.55.0rc1"])
def test_a_uvicorn_with_other_insides_stops_the_start_and_is_named(version: str) -> None:
    with pytest.raises(UvicornVersionError, match=f"uvicorn {version} is installed") as caught:
        check_uvicorn(version)
    assert "pip install 'uvicorn>=0.48,<0.55'" in str(caught.value)


def test_it_is_said_before_anything_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.47.0")
    with pytest.raises(ListenError, match="uvicorn"):
        listen("127.0.0.1", 0)


def test_the_installed_uvicorn_and_what_the_package_asks_for_are_those_that_are_known() -> None:
    check_uvicorn(importlib.metadata.version("uvicorn"))
    project = Path(__file__).parents[2] / "pyproject.toml"
    asked = next(
        Requirement(line.partition("#")[0].strip().strip(",").strip('"'))
        for line in project.read_text().splitlines()
        if line.strip().startswith('"uvicorn')
    )
    known = {f">={'.'.join(map(str, UVICORN_FROM))}", f"<{'.'.join(map(str, UVICORN_BELOW))}"}
    assert {str(each) for each in asked.specifier} == known
