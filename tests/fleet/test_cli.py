"""The `paragone` command, run as people run it."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from importlib.metadata import version
from pathlib import Path

import pytest

from controller.fleet.fleet_file import load_fleet_file
from controller.fleet.spec import FleetSpec
from tests.fleet.running import PATIENCE_SECONDS, eventually
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo.yaml"


def paragone(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *words],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_SECONDS,
        check=False,
    )


def test_help_lists_every_command():
    result = paragone("--help")
    assert result.returncode == 0
    for command in ("up", "status", "fleet", "controller", "worker", "web"):
        assert re.search(rf"^    {command}\b", result.stdout, re.MULTILINE), command


def imported_by(*words: str, python: tuple[str, ...] = ("-m", "controller.cli")) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *python, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}


def test_help_imports_nothing_heavy_and_little_at_all():
    imported = imported_by("--help")
    assert "argparse" in imported
    for module in ("pydantic", "httpx", "fastapi", "asyncio", "yaml", "torch", "gradio"):
        assert module not in imported
    # What makes it answer at once, whatever else the machine does.
    assert len(imported - imported_by(python=("-c", "import argparse"))) < 150


def test_a_whole_fleet_is_read_and_planned_without_torch_and_gradio():
    imported = imported_by("fleet", "commands", str(DEMO))
    assert "pydantic" in imported
    assert not imported & {"torch", "transformers", "gradio", "worker", "webui"}


def test_the_version_is_the_packages():
    assert paragone("--version").stdout == f"paragone {version('paragone')}\n"


@pytest.mark.parametrize(
    ("words", "listed"), [((), "up  "), (("fleet",), "render  "), (("help", "logs"), "--follow")]
)
def test_without_a_command_or_after_help_the_help_is_shown(words, listed):
    result = paragone(*words)
    assert result.returncode == (0 if words[:1] == ("help",) else 2)
    assert listed in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("upp f.yaml", "paragone: error: there is no command 'upp'; did you mean 'up'?"),
        ("fleet rendr f", "paragone fleet: error: there is no command 'rendr'; did you mean 'rend"),
        ("zzz", "paragone: error: there is no command 'zzz'\n"),
        ("logs --folow", "unrecognized arguments: --folow; did you mean '--follow'?"),
        ("logs -n -1", "expected a number from 0 on, not '-1'"),
        ("fleet render f --to composer", "not 'composer'; did you mean 'compose'?"),
        ("chat --controler=x", "unrecognized arguments: --controler=x; did you mean '--controll"),
        ("compare --controller a:1", "expected an address: http://HOST:PORT, not 'a:1'"),
    ],
)
def test_a_misspelt_word_is_refused_with_the_one_that_was_probably_meant(words, complaint):
    result = paragone(*words.split())
    assert result.returncode == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert result.stdout == ""


def test_the_schema_is_the_models():
    assert json.loads(paragone("fleet", "schema").stdout) == FleetSpec.model_json_schema()


def test_the_demo_fleet_has_the_ports_and_names_that_the_documents_promise():
    spec = load_fleet_file(DEMO)
    assert spec.controller.url == "http://127.0.0.1:21001"
    assert spec.web is not None
    assert spec.web.url == "http://127.0.0.1:7860"
    assert {worker.name: worker.port for worker in spec.workers} == {
        "demo-llava": 21002,
        "demo-llava-8bit": 21003,
        "demo-llava-4bit": 21004,
        "demo-llava-zh": 21005,
    }


def test_commands_prints_one_line_for_each_process():
    result = paragone("fleet", "commands", str(DEMO))
    lines = result.stdout.splitlines()
    assert [re.findall(r"python -m (\w+)", line) for line in lines] == [
        ["controller"],
        *[["worker"]] * 4,
        ["webui"],
    ]


def test_a_wrong_fleet_file_is_status_2_and_one_line_for_each_cause(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("workers: [{name: a, modle_path: ./a, port: 1}]")
    for command in (("up",), ("fleet", "commands")):
        result = paragone(*command, str(path))
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            f"{path}:1: workers[0].model_path: is missing",
            f"{path}:1: workers[0].modle_path: unknown key; did you mean 'model_path'?",
        ]


def test_a_fleet_that_cannot_start_is_status_1_with_every_reason(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("workers: [{name: a, model_path: ./a, model_base: ./b, port: 1}]")
    result = paragone("up", str(path))
    assert result.returncode == 1
    assert "a: model_path: there is no folder" in result.stderr
    assert "a: model_base: there is no folder" in result.stderr


def test_status_without_a_controller_says_where_it_looked_and_what_to_do():
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    result = paragone("status", "--controller", url)
    assert result.returncode == 1
    assert f"no controller answers at {url}" in result.stderr
    assert "paragone up FILE" in result.stderr
    assert "Traceback" not in result.stderr


def test_status_of_something_else_says_so():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = paragone("status", "--controller", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert result.returncode == 1
    assert "is that a controller of Paragone?" in result.stderr


def test_status_shows_the_workers_as_a_table_and_as_json(start_fleet):
    fleet = start_fleet([], [])
    url = fleet.wait_for_line("API").split()[2].removesuffix("/v1")
    table = paragone("status", "--controller", url).stdout
    assert [line.split()[:2] for line in table.splitlines()] == [
        ["MODEL", "STATE"],
        ["w0", "ready"],
        ["w1", "ready"],
    ]
    workers = json.loads(paragone("status", "--controller", url, "--json").stdout)["workers"]
    assert {worker["status"]["models"][0]["name"] for worker in workers} == {"w0", "w1"}


def test_a_reader_that_has_enough_is_no_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "fleet", "commands", str(DEMO)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE_SECONDS) == 1
    process.stderr.close()


@pytest.mark.parametrize(
    ("command", "package"),
    [("controller", "controller"), ("worker", "worker"), ("web", "webui")],
)
def test_the_processes_own_flags_and_help_pass_through(command, package):
    result = paragone(command, "--help")
    assert result.returncode == 0
    assert f"python -m {package}" in result.stdout
    assert "--log-format" in result.stdout


def test_ctrl_c_on_a_terminal_stops_the_fleet(write_fleet, tmp_path):
    """Colours, a status line while it starts, and a Ctrl-C that is a key rather than a signal."""
    may_be_ready = tmp_path / "may be ready"
    path = write_fleet(["--ready-once", str(may_be_ready)])
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.cli", "up", str(path)],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    os.close(other_end)
    shown = b""
    try:
        while b"tower 50%" not in shown:
            shown += os.read(terminal, 65536)
        may_be_ready.touch()
        while b"Ctrl-C stops everything" not in shown:
            shown += os.read(terminal, 65536)
        os.write(terminal, b"\x03")
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        os.close(terminal)
        process.kill()
        process.wait()
    text = shown.decode()
    assert re.search(r"controller  starting +pid \d+", text)
    assert re.search(r"w0          tower 50% +pid \d+", text)
    assert "\x1b[36mcontroller |\x1b[0m" in text
    assert "everything has stopped" in text


def _take_terminal() -> None:
    """Makes standard input the controlling terminal of this new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_status_names_the_variable_for_a_token_that_it_lacks(monkeypatch):
    port = free_ports(1)[0]
    monkeypatch.setenv("PARAGONE_CONTROLLER_FLEET_TOKEN", "secret")
    controller = subprocess.Popen(
        [sys.executable, "-m", "controller", "--port", str(port), "--log-level", "error"]
    )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: paragone("status", "--controller", url).returncode == 0, what="up")
        monkeypatch.delenv("PARAGONE_CONTROLLER_FLEET_TOKEN")
        result = paragone("status", "--controller", url)
        assert result.returncode == 1
        assert "set PARAGONE_CONTROLLER_FLEET_TOKEN" in result.stderr
    finally:
        controller.terminate()
        controller.wait(PATIENCE_SECONDS)
