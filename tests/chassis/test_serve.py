"""Listening sockets: a taken port is known, and said, before anything else happens."""

from __future__ import annotations

import socket

import pytest

from controller.chassis.serve import ListenError, listen


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
