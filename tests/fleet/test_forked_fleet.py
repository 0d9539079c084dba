"""`paragone up` with a fork server: the real one, whose workers are fake and import nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import worker
from tests.fleet.conftest import FAKE
from tests.fleet.fleet_files import make_model, write_fleet_file
from tests.fleet.running import RunningFleet, eventually, is_running
from tests.fleet.test_cli import paragone

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux adopts orphans"),
]

QUICK = "restart: {first_delay_seconds: 0.05, max_failed_starts: 3}\nstop_grace_seconds: 60\n"

# A worker says how it was started, and does what the fake process does.
MAIN = f"""
import os, runpy, sys

def main(argv=None):
    how = "forked" if "worker.forked" in sys.modules else "by itself"
    print(f"started {{how}} with {{os.environ['OMP_NUM_THREADS']}} threads", flush=True)
    runpy.run_path({str(FAKE)!r}, run_name="__main__")
    return 0

if __name__ == "__main__":
    main()
"""

Start = Callable[..., RunningFleet]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a fleet of one worker for each list of extra flags."""
    fakes = tmp_path / "fakes" / "worker"
    # Over the real package: only what takes seconds to import is other than there.
    for name, text in {
        "__init__.py": f"__path__.append({str(Path(worker.__file__).parent)!r})\n",
        "__main__.py": MAIN,
        "engine/__init__.py": "",
        "engine/build.py": "import os\nif os.environ.get('BREAKS'): os._exit(9)\n",
        "checkpoint/__init__.py": "",
        "checkpoint/quantise.py": "def quiet_bitsandbytes(): pass\n",
    }.items():
        path = fakes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in ("engine", "checkpoint"):
        real = Path(worker.__file__).parent / folder
        (fakes / folder / "__init__.py").write_text(f"__path__.append({str(real)!r})\n")
    make_model(tmp_path)
    fleets: list[RunningFleet] = []

    def start_fleet(*workers: list[str], more: str = "", **env: str) -> RunningFleet:
        path = write_fleet_file(tmp_path, workers, "device: cpu", extra=QUICK)
        # Of the first worker alone.
        path.write_text(path.read_text().replace("name: w0", "name: w0" + more))
        fleets.append(RunningFleet(path, env={"PYTHONPATH": str(fakes.parent), **env}))
        return fleets[-1]

    yield start_fleet
    for fleet in fleets:
        fleet.kill()


def fork_server_of(fleet: RunningFleet) -> int | None:
    """The process id of a fleet's fork server; None where there is none."""
    for child in psutil.Process(fleet.supervisor_pid).children():
        if "worker.fork_server" in child.cmdline() and is_running(child.pid):
            return child.pid
    return None


def test_forked_workers_are_children_with_their_own_names_and_log_lines(start: Start):
    fleet = start(["--say", "I am w0"], ["--say", "I am w1"])
    fleet.wait_for_line("Paragone is ready: w0, w1")
    assert set(fleet.pids) == {"controller", "w0", "w1"}
    for name in ("w0", "w1"):
        assert f"{name}         | I am {name}" in fleet.output
    assert fleet.output.count("started forked with") == 2
    server = fork_server_of(fleet)
    assert server is not None
    assert fleet.stop() == 0
    assert fleet.survivors() == set()
    assert not is_running(server)


def test_a_worker_with_its_own_thread_count_gets_it_in_a_process_of_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # they would be for all workers
        monkeypatch.delenv(name, raising=False)
    fleet = start([], [], [], more=", threads: 7")
    fleet.wait_for_line("Paragone is ready: w0, w1, w2")
    assert "w0         | started by itself with 7 threads" in fleet.output
    assert fleet.output.count("started forked with") == 2


def test_a_killed_worker_is_forked_again_and_the_others_are_left_alone(start: Start):
    fleet = start([], [])
    fleet.wait_for_line("Paragone is ready")
    before, server = fleet.pids, fork_server_of(fleet)
    os.kill(before["w0"], signal.SIGKILL)
    fleet.wait_for_line("w0         | was killed by SIGKILL; starting again in 0.05 s")
    fleet.wait_for_line("w0 is back")
    assert fleet.pids["w1"] == before["w1"]
    assert fork_server_of(fleet) == server
    assert fleet.output.count("started forked with") == 3


def test_exit_statuses_of_forked_workers_decide_as_those_of_others(start: Start):
    fleet = start([], ["--exit-with", "3"], ["--say", "bad flag", "--exit-with", "2"])
    fleet.wait_for_line("Not w1: 3 starts in a row ended before it was ready")
    fleet.wait_for_line("Not w2: it refused to start")
    assert "w1         | exited with status 3; it stays down" in fleet.output
    assert fleet.output.count("w2         | bad flag") == 1


def test_a_killed_fork_server_takes_no_worker_with_it_and_is_replaced(start: Start):
    fleet = start([], [])
    fleet.wait_for_line("Paragone is ready")
    before, server = fleet.pids, fork_server_of(fleet)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not is_running(server), what="the fork server is gone")
    os.kill(before["w0"], signal.SIGKILL)
    fleet.wait_for_line("w0         | was killed by SIGKILL")
    fleet.wait_for_line("w0 is back")
    assert fleet.pids["w1"] == before["w1"], "it never noticed"
    assert fork_server_of(fleet) not in {server, None}
    assert fleet.output.count("started forked with") == 3
    assert fleet.stop() == 0
    assert fleet.survivors() == set()


def test_nothing_is_left_when_fork_server_and_supervisor_are_killed(start: Start):
    fleet = start(["--ignore-sigterm", "--grandchild"], [])
    grandchild = int(fleet.wait_for_line("grandchild").split()[-1])
    fleet.wait_for_line("Paragone is ready")
    assert len(fleet.pids) == 3
    server = fork_server_of(fleet)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    fleet.kill()
    eventually(lambda: not fleet.survivors(), what="every process is gone")
    eventually(lambda: not is_running(grandchild), what="the grandchild is gone")


def test_nothing_is_left_when_the_supervisor_is_killed(start: Start):
    fleet = start(["--ignore-sigterm"], [])
    fleet.wait_for_line("Paragone is ready")
    assert len(fleet.pids) == 3
    server = fork_server_of(fleet)
    assert server is not None
    fleet.kill()
    eventually(lambda: not fleet.survivors(), what="every process is gone")
    eventually(lambda: not is_running(server), what="the fork server is gone")


def test_forked_workers_are_scaled_changed_read_and_stopped_like_others(
    start: Start,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
):
    state = tmp_path_factory.mktemp("state")  # a short path, as sockets want it
    state.chmod(0o700)
    monkeypatch.setenv("PARAGONE_STATE_DIR", str(state))
    fleet = start([], ["--say", "I am w1"])
    fleet.wait_for_line("Paragone is ready: w0, w1")
    before, server = fleet.pids, fork_server_of(fleet)
    assert "I am w1" in paragone("logs", "w1").stdout
    result = paragone("scale", "w0=2")
    assert "started: w0#2; left alone: controller, w0, w1" in result.stdout, result.stderr
    fleet.wait_for_line("Paragone is ready: w0, w0#2, w1")
    assert fleet.output.count("started forked with") == 3
    path = tmp_path / "fleet.yaml"
    path.write_text(path.read_text().replace("I am w1", "I am changed"))
    result = paragone("up", str(path))
    assert "restarted: w1; stopped: w0#2; left alone: controller, w0" in result.stdout
    fleet.wait_for_line("I am changed")
    assert fleet.pids["w0"] == before["w0"]
    assert fork_server_of(fleet) == server
    assert paragone("down").returncode == 0
    assert fleet.survivors() == set()
    assert server is None or not is_running(server)


def test_where_the_fork_server_cannot_import_workers_start_by_themselves(start: Start):
    fleet = start([], [], BREAKS="1")
    fleet.wait_for_line("Paragone is ready: w0, w1")
    assert "is not forked, but started by itself: the fork server has ended" in fleet.output
    assert fleet.output.count("started by itself with") == 2
    assert fork_server_of(fleet) is None


def test_a_fleet_is_stopped_while_its_fork_server_imports(start: Start, tmp_path: Path):
    slow = tmp_path / "fakes" / "worker" / "engine" / "build.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(1000)\n")
    fleet = start([], [])
    fleet.wait_for_line("importing")
    server = fork_server_of(fleet)
    assert server is not None
    assert fleet.stop() == 0
    assert fleet.survivors() == set()
    assert not is_running(server)
