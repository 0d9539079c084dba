"""A running fleet, commanded by other command lines."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.fleet.control import Request
from controller.fleet.control_client import ControlError, ask, look_at_fleet
from controller.fleet.state_dir import (
    AlreadyRunningError,
    StateDirError,
    running_fleets,
    state_dir_of,
)
from tests.fleet.running import PATIENCE_SECONDS, eventually
from tests.fleet.test_cli import paragone

QUICK = "restart: {first_delay_seconds: 0.05, max_failed_starts: 3}\nstop_grace_seconds: 1\n"


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory, monkeypatch):
    """No fleet of anybody else is found."""
    folder = tmp_path_factory.mktemp("state")
    folder.chmod(0o700)
    monkeypatch.setenv("PARAGONE_STATE_DIR", str(folder))


def test_down_stops_the_fleet_and_returns_once_nothing_is_left(start_fleet):
    fleet = start_fleet([], ["--grandchild"], web=True)
    fleet.wait_for_line("Paragone is ready")
    assert len(fleet.pids) == 4
    result = paragone("down")
    assert (result.returncode, result.stderr) == (0, "")
    assert fleet.survivors() == set()
    assert fleet.wait() == 0


def test_down_now_does_not_wait_for_the_grace(start_fleet):
    fleet = start_fleet(["--ignore-sigterm"], extra="stop_grace_seconds: 1000\n")
    fleet.wait_for_line("Paragone is ready")
    assert fleet.pids
    assert paragone("down", "--now").returncode == 0
    assert fleet.survivors() == set()


def test_a_supervisor_that_was_started_before_an_upgrade_is_asked_in_words_that_it_knows(tmp_path):
    state = state_dir_of(tmp_path / "fleet.yaml", os.environ)
    state.socket.parent.mkdir(parents=True, exist_ok=True)
    asked = []

    def answer():
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as lines:
            asked.append(json.loads(lines.readline()))
            connection.sendall(b'{"kind":"done","text":"so be it"}\n')

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(state.socket))
        listening.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        assert ask(state, Request(command="stop"), on_line=asked.append) == "so be it"
        thread.join()
    assert asked == [{"command": "stop"}]


def test_status_and_chat_ask_the_one_fleet_that_runs_here(start_fleet, monkeypatch):
    monkeypatch.delenv("PARAGONE_CONTROLLER_URL", raising=False)
    fleet = start_fleet([], ["--exit-with", "2"], extra=QUICK)
    url = fleet.wait_for_line("API ").split()[2].removesuffix("/v1")
    result = paragone("status")
    assert (result.returncode, result.stderr) == (0, "")
    assert url != "http://127.0.0.1:21001"
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["MODEL", "STATE"], ["w0", "ready"]]
    # The controller has never heard of this one.
    assert lines[2:] == ["w1: given up: it refused to start, and another try would end alike"]
    assert [w["address"] for w in json.loads(paragone("status", "--json").stdout)["workers"]]
    assert f"controller_url: {url}\n" in paragone("chat", "--print-config").stdout

    other = "http://127.0.0.1:9"
    assert f"answers at {other}" in paragone("status", "--controller", other).stderr
    monkeypatch.setenv("PARAGONE_CONTROLLER_URL", other)
    assert f"answers at {other}" in paragone("status").stderr
    assert f"controller_url: {other}\n" in paragone("chat", "--print-config").stdout


def test_a_supervisor_that_stands_still_or_knows_no_looks_is_as_good_as_none(tmp_path):
    state = state_dir_of(tmp_path / "fleet.yaml", os.environ)
    answers = [None, b'{"kind":"error","text":"not a request"}\n', b'{"kind":"do']
    with state.held(), socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor() as pool:
        listening.bind(str(state.socket))
        listening.listen()
        for answer in answers:
            looking = pool.submit(look_at_fleet, os.environ)
            connection, _ = listening.accept()
            with connection:
                if answer is not None:
                    connection.recv(1000)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_RDWR)
                assert looking.result(PATIENCE_SECONDS) is None


@pytest.mark.parametrize("is_read", [True, False])
def test_a_supervisor_that_ends_before_it_answers_is_no_success_but_of_a_stop(tmp_path, is_read):
    state = state_dir_of(tmp_path / "fleet.yaml", os.environ)
    with state.held(), socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor() as pool:
        listening.bind(str(state.socket))
        listening.listen()

        def end_of(request):
            asking = pool.submit(ask, state, request, on_line=print)
            connection, _ = listening.accept()
            with connection:
                # Closed with something unread, a socket is reset at the other end.
                connection.recv(1000, 0 if is_read else socket.MSG_PEEK)
            return asking

        assert end_of(Request(command="stop")).result(PATIENCE_SECONDS) == ""
        assert end_of(Request(command="logs", follow=True)).result(PATIENCE_SECONDS) == ""
        for request in (Request(command="apply"), Request(command="scale", name="w0")):
            with pytest.raises(ControlError, match=r"ended before it answered; .*paragone up "):
                end_of(request).result(PATIENCE_SECONDS)


def test_without_a_running_fleet_it_is_said_what_to_do(tmp_path):
    for words in (["down"], ["logs", "w0"], ["scale", "w0=2"]):
        result = paragone(*words)
        assert result.returncode == 1
        assert result.stderr == "no fleet runs here; start one with `paragone up FILE`\n"


def test_up_again_touches_only_what_changed(start_fleet, tmp_path):
    fleet = start_fleet([], [], [], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    before = fleet.pids
    path = tmp_path / "fleet.yaml"
    lines = path.read_text().splitlines()
    changed = [
        line.replace("args: []", "args: ['--say', 'changed']") if "name: w1," in line else line
        for line in lines
        if "name: w2," not in line
    ]
    path.write_text("\n".join(changed))
    result = paragone("up", str(path))
    assert result.stdout == "restarted: w1; stopped: w2; left alone: controller, w0\n", (
        result.stderr
    )
    assert result.returncode == 0
    fleet.wait_for_line("w1         | changed")
    after = fleet.pids
    assert set(after) == {"controller", "w0", "w1"}
    assert (after["controller"], after["w0"]) == (before["controller"], before["w0"])
    assert after["w1"] != before["w1"]
    assert paragone("up", str(path)).stdout == "nothing changed; left alone: controller, w0, w1\n"


def test_a_changed_file_that_cannot_be_started_changes_nothing(start_fleet, tmp_path):
    fleet = start_fleet([], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    before = fleet.pids
    path = tmp_path / "fleet.yaml"
    good = path.read_text()
    path.write_text(good.replace("./model", "./nowhere"))
    result = paragone("up", str(path))
    assert result.returncode == 1
    assert "nothing was changed" in result.stderr
    assert "there is no folder" in result.stderr
    path.write_text(good + "wrong: 1\n")
    assert paragone("up", str(path)).returncode == 2
    assert fleet.pids == before


def test_a_worker_is_scaled_up_and_down_while_the_others_run_on(start_fleet):
    fleet = start_fleet([], ["--exit-with", "3"], extra=QUICK)
    fleet.wait_for_line("Paragone is ready: w0")
    before = fleet.pids
    result = paragone("scale", "w0=2")
    assert "started: w0#2" in result.stdout, result.stderr
    fleet.wait_for_line("Paragone is ready: w0, w0#2")
    result = paragone("scale", "w0=1")
    assert "stopped: w0#2" in result.stdout
    assert fleet.pids["w0"] == before["w0"]
    assert paragone("scale", "w9=2").returncode == 1
    assert paragone("scale", "w0=none").returncode == 2


def test_logs_are_the_last_lines_and_follow_what_comes(start_fleet):
    fleet = start_fleet(["--say", "hello"], ["--say", "other"], extra=QUICK)
    fleet.wait_for_line("Paragone is ready")
    assert paragone("logs", "w0").stdout == "hello\n"
    assert "w1 | other" in paragone("logs").stdout
    assert "no process is called 'w7'" in paragone("logs", "w7").stderr
    following = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "logs", "w0", "-f"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert following.stdout.readline() == "hello\n"
    os.kill(fleet.pids["w0"], signal.SIGKILL)
    assert "was killed by SIGKILL" in following.stdout.readline()
    assert following.stdout.readline() == "hello\n"
    assert paragone("down").returncode == 0
    assert following.wait(PATIENCE_SECONDS) == 0
    following.stdout.close()


def test_the_socket_is_the_users_alone_and_a_killed_supervisor_is_no_fleet(start_fleet, tmp_path):
    fleet = start_fleet([])
    fleet.wait_for_line("Paragone is ready")
    state = state_dir_of(tmp_path / "fleet.yaml", os.environ)
    assert stat.S_IMODE(state.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.socket.parent.stat().st_mode) == 0o700
    assert [found.fleet_file for found in running_fleets(os.environ)] == [tmp_path / "fleet.yaml"]
    assert fleet.pids
    fleet.kill()
    eventually(lambda: not fleet.survivors(), what="every process is gone")
    assert running_fleets(os.environ) == []
    assert state.socket.exists(), "left behind, and not taken for a supervisor"
    with state.held():
        assert not state.socket.exists()
        with pytest.raises(AlreadyRunningError), state.held():
            pass


def test_nothing_is_left_of_a_fleet_that_was_stopped_nor_of_one_that_was_killed(tmp_path):
    environ = {"PARAGONE_STATE_DIR": str(tmp_path / "state")}
    stopped, killed = (state_dir_of(tmp_path / name, environ) for name in ("a.yaml", "b.yaml"))
    hold = "import os, sys; from pathlib import Path; from controller.fleet import state_dir as s\n"
    hold += f"with s.state_dir_of(Path({str(tmp_path / 'b.yaml')!r}), {environ!r}).held():\n"
    hold += "    os._exit(0)"
    subprocess.run([sys.executable, "-c", hold], check=True)
    assert killed.socket.parent.is_dir()
    with stopped.held():
        assert [each.name for each in (tmp_path / "state").iterdir()] == [
            stopped.socket.parent.name
        ]
        assert stopped.is_held()
    assert list((tmp_path / "state").iterdir()) == []
    assert not stopped.is_held()


def test_many_that_start_and_end_at_once_never_hold_one_fleet_file_together(tmp_path):
    environ = {"PARAGONE_STATE_DIR": str(tmp_path / "state")}
    inside, most = [0], [0]
    together = threading.Barrier(4)

    def hold_often() -> None:
        together.wait(60)
        held = 0
        while held < 10:
            state = state_dir_of(tmp_path / "a.yaml", environ)
            try:
                with state.held():
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    held += 1
                    time.sleep(0.001)
                    inside[0] -= 1
            except AlreadyRunningError:
                pass

    threads = [threading.Thread(target=hold_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert list((tmp_path / "state").iterdir()) == []


def test_a_folder_whose_path_is_too_long_for_a_socket_is_named_with_the_way_out(
    start_fleet, tmp_path, monkeypatch
):
    monkeypatch.setenv("PARAGONE_STATE_DIR", str(tmp_path / ("x" * 100)))
    fleet = start_fleet([])
    assert fleet.wait() == 1
    assert "control.sock cannot be a socket (AF_UNIX path too long)" in fleet.output
    assert "of a short path, in PARAGONE_STATE_DIR" in fleet.output
    assert "Traceback" not in fleet.output


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StateDirError, match="not a folder of this user alone"):
        running_fleets({"PARAGONE_STATE_DIR": str(tmp_path / "open")})


def test_json_lines_are_written_where_no_terminal_is(write_fleet):
    path: Path = write_fleet(["--say", "hello"])
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "up", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen = []
    try:
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1].get("event") == "summary":
                break
        assert paragone("down", str(path)).returncode == 0
        seen += [json.loads(line) for line in process.stdout]
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
    assert any(e.get("process") == "w0" and e.get("line") == "hello" for e in seen)
    assert "Paragone is ready: w0" in next(e for e in seen if e.get("event"))["lines"]
    assert all(entry["time"] > 1e9 for entry in seen)
