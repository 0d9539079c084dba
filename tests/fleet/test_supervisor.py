"""`paragone up`, as a process with processes: a real controller, fake workers, a fake page."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fleet.running import PATIENCE_SECONDS, eventually, is_running

ROOT = Path(__file__).parents[2]
TLS = ROOT / "tests" / "data" / "tls"
QUICK = "restart: {first_delay_seconds: 0.05, max_failed_starts: 3}\nstop_grace_seconds: 1\n"


def test_the_box_comes_once_every_model_is_routed_to(start_fleet):
    fleet = start_fleet([], ["--ready-after", "0.5"], web=True)
    fleet.wait_for_line("Paragone is ready: w0, w1")
    page = fleet.wait_for_line("Page")
    api = fleet.wait_for_line("API")
    assert re.search(r"http://127\.0\.0\.1:\d+", page)
    assert re.search(r"http://127\.0\.0\.1:\d+/v1", api)
    assert set(fleet.pids) == {"controller", "w0", "w1", "web"}


def test_each_line_carries_the_name_of_its_process(start_fleet):
    fleet = start_fleet(["--say", "hello from a worker"])
    line = fleet.wait_for_line("hello from a worker")
    assert line == "w0         | hello from a worker"


def test_no_colours_are_written_where_no_terminal_is(start_fleet):
    fleet = start_fleet([])
    fleet.wait_for_line("Paragone is ready")
    assert "\x1b" not in fleet.output


def test_sigterm_and_ctrl_c_stop_every_process_with_status_0(start_fleet):
    for number in (signal.SIGTERM, signal.SIGINT):
        fleet = start_fleet([], [], web=True)
        fleet.wait_for_line("Paragone is ready")
        pids = fleet.pids
        assert len(pids) == 4
        fleet.interrupt(number)
        assert fleet.wait() == 0
        assert fleet.survivors() == set()
        assert "everything has stopped" in fleet.output


def test_a_fleet_can_be_stopped_while_it_is_starting(start_fleet):
    fleet = start_fleet(["--ready-after", "1000"])
    fleet.wait_for_process("w0")
    assert fleet.stop() == 0
    assert fleet.survivors() == set()


def test_a_fleet_with_certificates_is_asked_over_https(start_fleet):
    # Workers trust the controller by SSL_CERT_FILE here, as real ones do by --tls-ca.
    settings = f"""
env:
  PARAGONE_CONTROLLER_TLS_CERT: {TLS / "localhost.pem"}
  PARAGONE_CONTROLLER_TLS_KEY: {TLS / "localhost-key.pem"}
  SSL_CERT_FILE: {TLS / "localhost.pem"}
"""
    shown = ["--tls-cert", str(TLS / "localhost.pem"), "--tls-key", str(TLS / "localhost-key.pem")]
    fleet = start_fleet(shown, [], extra=settings)
    fleet.wait_for_line("Paragone is ready: w0, w1")
    found = re.search(r"(https://127\.0\.0\.1:\d+)/v1", fleet.wait_for_line("API"))
    assert found is not None
    command = [sys.executable, "-m", "controller.cli", "status", "--controller", found[1]]
    distrusting, trusting = (
        subprocess.run(
            command, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
        for env in ({}, {"PARAGONE_CONTROLLER_TLS_CA": str(TLS / "localhost.pem")})
    )
    assert trusting.returncode == 0
    assert "https://127.0.0.1" in trusting.stdout
    assert distrusting.returncode == 1
    assert "certificate" in distrusting.stderr


def test_a_killed_worker_comes_back(start_fleet):
    fleet = start_fleet([], [], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    before = fleet.pids
    os.kill(before["w0"], signal.SIGKILL)
    fleet.wait_for_line("w0         | was killed by SIGKILL; starting again in 0.05 s")
    fleet.wait_for_process("w0", other_than=before["w0"])
    fleet.wait_for_line("w0 is back")
    assert fleet.pids["w1"] == before["w1"], "the other worker was left alone"


def test_a_killed_controller_comes_back(start_fleet):
    fleet = start_fleet([], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    before = fleet.pids
    os.kill(before["controller"], signal.SIGKILL)
    fleet.wait_for_line("controller is back")
    assert fleet.pids["w0"] == before["w0"], "workers do not depend on it"


def test_a_worker_that_cannot_start_stays_down_with_its_last_lines_shown(start_fleet):
    fleet = start_fleet([], ["--say", "no such GPU", "--exit-with", "3"], extra=QUICK)
    fleet.wait_for_line("Paragone is ready: w0")
    fleet.wait_for_line("Not w1: 3 starts in a row ended before it was ready")
    assert fleet.output.count("w1         | no such GPU") == 3
    assert "w1         | exited with status 3; it stays down" in fleet.output
    assert "w1         |   no such GPU" in fleet.output
    assert "its command: " in fleet.output


def test_a_worker_that_refuses_to_start_is_started_only_once(start_fleet):
    fleet = start_fleet([], ["--say", "bad flag", "--exit-with", "2"], extra=QUICK)
    fleet.wait_for_line(
        "Not w1: it refused to start, and another try would end alike (paragone logs w1)"
    )
    assert fleet.output.count("w1         | bad flag") == 1


def test_a_worker_whose_model_failed_to_load_is_shown_with_its_reason(start_fleet):
    fleet = start_fleet([], ["--fail-loading", "no weights in ./model"])
    fleet.wait_for_line("Paragone is ready: w0")
    fleet.wait_for_line("Not w1: no weights in ./model")


def test_the_fleet_ends_with_status_1_once_no_worker_is_left(start_fleet):
    fleet = start_fleet(["--exit-with", "3"], extra=QUICK)
    fleet.wait_for_line("there is no worker left: the fleet stops")
    assert fleet.wait() == 1
    assert fleet.survivors() == set()


def test_a_process_that_does_not_stop_is_killed_after_the_grace(start_fleet):
    fleet = start_fleet(["--ignore-sigterm"], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    started = time.monotonic()
    assert fleet.stop() == 0
    assert time.monotonic() - started >= 1.0
    assert "w0         | was killed: it had not stopped after 1 s" in fleet.output
    assert fleet.survivors() == set()


def test_a_second_ctrl_c_kills_at_once(start_fleet):
    fleet = start_fleet(["--ignore-sigterm"], extra="stop_grace_seconds: 1000\n")
    fleet.wait_for_line("Paragone is ready")
    assert fleet.pids
    fleet.interrupt()
    fleet.wait_for_line("stopping (once more to kill)")
    fleet.interrupt()
    assert fleet.wait() == 0
    assert fleet.survivors() == set()


def test_nothing_is_orphaned_when_the_supervisor_is_killed(start_fleet):
    fleet = start_fleet(["--ignore-sigterm", "--grandchild"], [], web=True)
    line = fleet.wait_for_line("grandchild")
    fleet.wait_for_line("Paragone is ready")
    assert len(fleet.pids) == 4
    grandchild = int(line.split()[-1])
    assert is_running(grandchild)
    fleet.kill()
    eventually(lambda: not fleet.survivors(), what="every process is gone")
    eventually(lambda: not is_running(grandchild), what="the grandchild is gone")


def test_what_a_worker_started_is_stopped_with_it(start_fleet):
    fleet = start_fleet(["--grandchild"])
    grandchild = int(fleet.wait_for_line("grandchild").split()[-1])
    fleet.wait_for_line("Paragone is ready")
    assert fleet.stop() == 0
    assert not is_running(grandchild)


def test_a_killed_guard_is_replaced_and_still_knows_every_process(start_fleet):
    fleet = start_fleet([], [], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    before = fleet.pids
    guard = _guard_of(fleet.supervisor_pid)
    os.kill(guard, signal.SIGKILL)
    eventually(lambda: not is_running(guard), what="the guard is gone")
    os.kill(before["w0"], signal.SIGKILL)  # the next announcement finds the guard gone
    fleet.wait_for_line("w0 is back")
    assert _guard_of(fleet.supervisor_pid) != guard
    assert len(fleet.pids) == 3
    fleet.kill()
    eventually(lambda: not fleet.survivors(), what="every process is gone")


def test_a_taken_port_is_named_before_anything_is_started(write_fleet, start_fleet):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet = start_fleet([], extra=f"web: {{port: {port}}}\n")
        assert fleet.wait() == 1
        assert f"web: port {port} on 127.0.0.1 is taken by process {os.getpid()}" in fleet.output
        assert "starting" not in fleet.output


def test_a_reader_that_goes_away_stops_the_fleet(write_fleet):
    path = write_fleet([])
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "up", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def _guard_of(supervisor: int) -> int:
    for child in psutil.Process(supervisor).children():
        if "controller.fleet.guard" in child.cmdline():
            return child.pid
    raise AssertionError("there is no guard")


def test_scripts_demo_names_a_taken_port_before_anything_is_started():
    if not Path(sys.prefix, "installed").is_dir():
        pytest.skip("this environment was not made by the scripts: the demo would install first")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then somebody else has it already
            stack.enter_context(socket.create_server(("127.0.0.1", 21001)))
        result = subprocess.run(
            [ROOT / "scripts" / "demo"],
            env={**os.environ, "PARAGONE_VENV": sys.prefix},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )
    assert result.returncode == 1
    assert "controller: port 21001 on 127.0.0.1 is taken by process" in result.stderr
    assert result.stdout == ""
