"""scripts/lib/venv.sh, with a Python that only writes down what it was asked to install."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fleet.running import PATIENCE_SECONDS, eventually

ROOT = Path(__file__).parents[2]

# Makes "environments" whose python is itself, and "installs" by writing its arguments down.
FAKE_PYTHON = """#!/bin/bash
case "$*" in
  *"version_info"*) exit ${TOO_OLD:-0} ;;
  *"import ensurepip"*) exit ${NO_VENV:-0} ;;
  "-m venv --clear"*)
    rm -rf "$4"/*
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    echo "venv" >>"$CALLS" ;;
  "--version") echo "Python 3.0.1" ;;
  "-m pip install"*)
    echo "pip ${@: -1}" >>"$CALLS"
    echo $$ >"$CALLS.pid"
    until [[ -z ${PIP_WAITS_FOR:-} || -e $PIP_WAITS_FOR ]]; do sleep 0.02; done
    [[ -z ${PIP_TAKES:-} ]] || exec sleep "$PIP_TAKES"
    exit "${PIP_EXIT:-0}" ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Checkout:
    """A checkout with nothing in it but what venv.sh needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls_path = root / "calls"
        (root / "scripts").mkdir(parents=True)
        (root / "configs").mkdir()
        shutil.copytree(ROOT / "scripts" / "lib", root / "scripts" / "lib")
        (root / "pyproject.toml").write_text("one")
        (root / "configs" / "constraints.txt").write_text("one")
        self.python = root / "fake-python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def start(self, extras: str, **env: str) -> subprocess.Popen[str]:
        code = f"source scripts/lib/venv.sh; ensure_venv {extras}; echo done"
        inherited = {key: value for key, value in os.environ.items() if key != "PARAGONE_VENV"}
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.root,
            env={**inherited, "PYTHON": str(self.python), "CALLS": str(self.calls_path), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ensure(self, extras: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(extras, **env)
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)

    @property
    def calls(self) -> list[str]:
        if not self.calls_path.exists():
            return []
        return self.calls_path.read_text().replace(str(self.root), "ROOT").splitlines()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout")


def test_the_first_time_it_makes_an_environment_and_installs_into_it(checkout):
    result = checkout.ensure("worker,webui")
    assert (result.returncode, result.stdout) == (0, "done\n")
    assert checkout.calls == ["venv", "pip ROOT[worker,webui]"]
    assert "installing paragone[worker,webui]" in result.stderr


def test_the_second_time_it_does_nothing(checkout):
    checkout.ensure("worker,webui")
    (checkout.root / ".venv" / "bin" / "python").write_text("#!/bin/bash\nexit 99")
    assert checkout.ensure("webui,worker").stderr == "", "not even Python was asked"
    assert len(checkout.calls) == 2


def test_fewer_extras_are_there_already(checkout):
    checkout.ensure("worker,webui,dev")
    checkout.ensure("worker")
    assert len(checkout.calls) == 2


def test_more_extras_are_added_to_those_that_are_there(checkout):
    checkout.ensure("worker,webui")
    checkout.ensure("dev")
    assert checkout.calls == ["venv", "pip ROOT[worker,webui]", "pip ROOT[dev,webui,worker]"]
    checkout.ensure("worker,webui")
    assert len(checkout.calls) == 3


@pytest.mark.parametrize("name", ["pyproject.toml", "configs/constraints.txt"])
def test_a_changed_pin_or_requirement_is_installed(checkout, name):
    checkout.ensure("worker")
    (checkout.root / name).write_text("two")
    checkout.ensure("worker")
    assert checkout.calls == ["venv", "pip ROOT[worker]", "pip ROOT[worker]"]


def test_a_failed_installation_is_said_and_is_tried_again_the_next_time(checkout):
    result = checkout.ensure("worker", PIP_EXIT="1")
    assert result.returncode == 1
    assert "the installation failed" in result.stderr
    assert checkout.ensure("worker").returncode == 0
    assert checkout.calls == ["venv", "pip ROOT[worker]", "pip ROOT[worker]"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_installation_stops_pip_and_is_repaired_the_next_time(
    checkout, number, status
):
    process = checkout.start("worker", PIP_TAKES="1000")
    pid_file = Path(f"{checkout.calls_path}.pid")
    eventually(lambda: pid_file.exists() and bool(pid_file.read_text()), what="pip runs")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == status
    assert "interrupted" in stderr
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()
    assert checkout.ensure("worker").returncode == 0


def test_two_scripts_started_together_install_once(checkout, tmp_path):
    may_end = tmp_path / "may end"
    first = checkout.start("worker", PIP_WAITS_FOR=str(may_end))
    eventually(lambda: len(checkout.calls) == 2, what="pip runs")
    second = checkout.start("worker")
    assert "waiting for another installation" in second.stderr.readline()
    may_end.touch()
    for process in (first, second):
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
    assert checkout.calls == ["venv", "pip ROOT[worker]"]


def test_a_broken_environment_is_made_anew(checkout):
    (checkout.root / ".venv" / "bin").mkdir(parents=True)
    (checkout.root / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
    checkout.ensure("worker")
    assert checkout.calls == ["venv", "pip ROOT[worker]"]


def test_a_python_that_is_too_old_is_named_with_what_is_needed(checkout):
    result = checkout.ensure("worker", TOO_OLD="1")
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "fake-python (Python 3.0.1)" in result.stderr
    assert checkout.calls == []


def test_a_python_without_venv_is_told_what_to_install(checkout):
    result = checkout.ensure("worker", NO_VENV="1")
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr


def test_the_environment_can_be_elsewhere(checkout, tmp_path):
    checkout.ensure("worker", PARAGONE_VENV=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "bin" / "python").exists()
    assert not (checkout.root / ".venv").exists()
