"""`paragone up --on ray` on a real Ray cluster: several nodes on this machine, one killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from controller.fleet.probe import fetch_workers, fleet_client
from tests.fleet.running import RunningFleet, eventually, is_running
from tests.fleet.test_cli import paragone
from tests.ports import free_ports

pytest.importorskip("ray", reason="ray is not installed: pip install 'paragone[ray]'")
pytestmark = [pytest.mark.anyio, pytest.mark.fleet, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "worker" / "demo" / "demo-llava"

# Cold imports of torch and starts of Ray, on a machine that has other work too.
START_SECONDS = 180

# Longer than any answer to the questions here may take, on a machine that is busy with torch.
ANSWER_SECONDS = 180


class RayNodes:
    """A cluster of nodes with one CPU each, and a head without any."""

    def __init__(self) -> None:
        # A short path, as sockets lie in it; nobody else's Ray is to find this one there.
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        # Ray would report its use to its makers.
        quiet = {"RAY_TMPDIR": self._folder.name, "RAY_USAGE_STATS_ENABLED": "0"}
        environ = {**os.environ, **quiet}
        self._nodes: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_cluster.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.address = self._read()

    def _read(self) -> str:
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        return line.strip()

    def _ask(self, line: str) -> str:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def nodes(self, count: int) -> list[str]:
        """The ids of its nodes, of which there are so many at least."""
        while len(self._nodes) < count:
            self._nodes.append(self._ask("add"))
        # Those that another test has killed are missed some seconds later.
        assert self._ask("settle") == "settled"
        return self._nodes

    def add_other_machine(self, address: str) -> str:
        """The id of a new node with a GPU and an address of its own."""
        self._nodes.append(self._ask(f"add 1 {address}"))
        return self._nodes[-1]

    def kill(self, node: str) -> None:
        self._nodes.remove(node)
        assert self._ask(f"kill {node}") == "killed"

    def kill_an_actor(self) -> None:
        ours = psutil.Process(self._process.pid).children(recursive=True)
        next(p for p in ours if "ray::WorkerHost" in " ".join(p.cmdline())).kill()

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(120)
        self._process.stdout.close()
        self._folder.cleanup()


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    nodes = RayNodes()
    try:
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture(autouse=True)
def environment(cluster, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    folder.chmod(0o700)
    monkeypatch.setenv("PARAGONE_STATE_DIR", str(folder))
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)


@pytest.fixture
def up():
    fleets = []

    def start(path: Path, *words: str) -> RunningFleet:
        fleets.append(RunningFleet(path, words=["--on", "ray", *words]))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.kill()


def processes_of(controller_port: int) -> set[int]:
    """Every process that has to do with a fleet, whoever its parent is."""
    found = set()
    for process in psutil.process_iter():
        try:
            if any(f":{controller_port}" in word for word in process.cmdline()):
                found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
        except psutil.Error:
            continue
    return found


class Load:
    """Clients that ask one question after another, and keep how each was answered."""

    def __init__(self, url: str, clients: int) -> None:
        self._url = url
        self._is_over = threading.Event()
        self.ends: list[str] = []  # "answer", or an error's code
        self.untyped: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        body = {
            "model": "demo-llava",
            "messages": [{"role": "user", "content": "What can you see?"}],
            "max_tokens": 24,
            "ignore_eos": True,
            "stream": True,
        }
        with httpx.Client(trust_env=False, timeout=ANSWER_SECONDS) as client:
            while not self._is_over.is_set():
                try:
                    text = client.post(self._url + "/chat/completions", json=body).text
                except httpx.HTTPError as exc:
                    self.untyped.append(repr(exc))
                    continue
                if text.rstrip().endswith("data: [DONE]"):
                    self.ends.append("answer")
                    continue
                last = text.rstrip().rpartition("data: ")[2]
                try:
                    self.ends.append(json.loads(last)["error"]["code"])
                except (ValueError, LookupError, TypeError):
                    self.untyped.append(text[-200:])
                time.sleep(0.1)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS + 10)
            assert not thread.is_alive(), "a request hangs"


async def live_addresses(controller: str) -> set[str]:
    async with fleet_client({}) as client:
        workers = await fetch_workers(client, controller)
    return {view.address for view in workers if view.status.state == "ready"}


async def test_a_worker_whose_node_is_killed_under_load_comes_back_on_another(
    cluster, up, tmp_path
):
    nodes = cluster.nodes(3)
    controller, worker, *_ = ports = free_ports(5)
    fleet_file = tmp_path / "fleet.yaml"
    fleet_file.write_text(
        f"env: {{HF_HUB_OFFLINE: 1}}\n"
        f"controller: {{port: {controller}}}\n"
        f"workers: [{{name: demo-llava, model_path: {DEMO}, device: cpu, port: {worker}, "
        f"replicas: 2, threads: 1}}]\n"
    )
    url = f"http://127.0.0.1:{controller}"
    fleet = up(fleet_file)
    placed = fleet.wait_for_line("demo-llava   | placed on", within=START_SECONDS)
    killed = next(node for node in nodes if f"(node {node[:8]})" in placed)
    fleet.wait_for_line("Paragone is ready: demo-llava, demo-llava#2", within=START_SECONDS)
    before = await live_addresses(url)
    assert len(before) == 2
    pids = processes_of(controller)

    load = Load(url + "/v1", clients=3)
    try:
        eventually(lambda: len(load.ends) >= 6, what="answers")
        cluster.kill(killed)
        answered = load.ends.count("answer")
        fleet.wait_for_line("demo-llava   | was lost with", within=START_SECONDS)
        fleet.wait_for_line("demo-llava is back", within=START_SECONDS)
        assert load.ends.count("answer") > answered, "the other replica answered meanwhile"
    finally:
        load.stop()
    assert load.untyped == []
    # Answers that the lost worker had begun may end so; all others are somebody's answer.
    assert set(load.ends) <= {"answer", "worker_lost", "no_live_worker"}

    lines = [line for line in fleet.output.splitlines() if "demo-llava   | placed on" in line]
    assert len(lines) == 2
    assert lines[0] != lines[1], "it is on another node"
    # The controller hears of it with the next beat.
    with anyio.fail_after(START_SECONDS):
        while len(await live_addresses(url)) != 2:  # noqa: ASYNC110 - another process is asked
            await anyio.sleep(0.2)

    # Two nodes are left, and a third replica has to wait; it says for what.
    assert paragone("scale", "demo-llava=3").returncode == 0
    fleet.wait_for_line(
        "demo-llava#3 | waits for a place: it needs 1 CPU; 0 CPU of 2 CPU are free in the cluster",
        within=START_SECONDS,
    )
    fleet.wait_for_line("Not demo-llava#3: waits for a place", within=START_SECONDS)
    result = paragone("up", str(fleet_file))  # the running one is told; where it runs is known
    assert (
        "stopped: demo-llava#3; left alone: controller, demo-llava, demo-llava#2" in result.stdout
    )
    assert "listens on" in paragone("logs", "demo-llava", "-n", "1000").stdout

    pids |= processes_of(controller)
    assert paragone("down").returncode == 0
    assert fleet.wait() == 0
    eventually(lambda: not any(map(is_running, pids)), what="no orphans")
    assert len(ports) == 5


def test_what_no_node_could_ever_run_is_told_before_anything_starts(cluster, write_fleet, tmp_path):
    cluster.nodes(1)
    path = write_fleet([])
    text = path.read_text().replace("name: w0", "name: w0, gpus: [0, 1]")
    path.write_text(text.replace("./model", "./gone"))
    result = paragone("up", str(path), "--on", "ray")
    assert result.returncode == 1
    assert "w0: needs 2 GPU on one node, and no node has more than none" in result.stderr
    assert "--wait-for-nodes" in result.stderr
    assert result.stdout == ""
    path.write_text(text.replace("./model", "./gone").replace(", gpus: [0, 1]", ""))
    result = paragone("up", str(path), "--on", "ray")
    assert result.returncode == 1
    assert re.search(rf"on [\d.]+: w0: model_path: there is no folder {tmp_path}", result.stderr)


def test_each_up_says_for_itself_whether_workers_may_wait_for_nodes(cluster, up, write_fleet):
    cluster.nodes(1)
    path = write_fleet([], [])
    text = path.read_text()
    path.write_text("".join(line for line in text.splitlines(True) if "name: w1," not in line))
    fleet = up(path)
    fleet.wait_for_line("w0         | placed on", within=START_SECONDS)

    path.write_text(text.replace("name: w1", "name: w1, gpus: [0, 1, 2, 3]"))
    result = paragone("up", str(path))
    assert result.returncode == 1
    assert "nothing was changed:\n  - w1: needs 4 GPU on one node" in result.stderr
    result = paragone("up", str(path), "--wait-for-nodes")
    assert (result.stdout, result.stderr) == ("started: w1; left alone: controller, w0\n", "")
    fleet.wait_for_line("w1         | waits for a node: it needs 4 GPU", within=START_SECONDS)
    assert paragone("scale", "w0=2").returncode == 0
    result = paragone("scale", "w1=4")  # a GPU each, which is as little there
    assert result.returncode == 0, result.stderr
    assert fleet.stop() == 0


def test_workers_on_other_machines_are_reached_at_their_addresses_with_the_gpus_of_ray(
    cluster, up, write_fleet
):
    """Loopback addresses of this machine, which Ray takes for other machines."""
    nodes = [cluster.add_other_machine(address) for address in ("127.0.0.2", "127.0.0.3")]
    try:
        path = write_fleet([])
        result = paragone("up", str(path), "--on", "ray")
        assert result.returncode == 1
        assert (
            "controller: workers on 127.0.0.2, 127.0.0.3 cannot reach it on 127.0.0.1; give it "
            "`host: 0.0.0.0`"
        ) in result.stderr

        text = path.read_text().replace("name: w0", "name: w0, gpus: [6, 7], replicas: 2")
        port = int(re.search(r"controller: {port: (\d+)}", text)[1])
        open_to_all = f"{{port: {port}, host: 0.0.0.0, args: [--allow-anonymous-network-access]}}"
        path.write_text(text.replace(f"{{port: {port}}}", open_to_all))
        fleet = up(path)
        fleet.wait_for_line("Paragone is ready: w0, w0#2", within=START_SECONDS)
        workers = [psutil.Process(pid) for pid in processes_of(port) if _is_worker(pid)]
        listening = {c.laddr.ip for worker in workers for c in worker.net_connections("tcp")}
        assert {"127.0.0.2", "127.0.0.3"} <= listening
        # Each node has one GPU, its first, whatever the file calls those of this machine.
        assert [worker.environ()["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["0", "0"]
        assert fleet.stop() == 0
        eventually(lambda: not any(w.is_running() for w in workers), what="no orphans")
    finally:
        for node in nodes:
            cluster.kill(node)


def test_a_killed_supervisor_leaves_no_worker_on_any_node(cluster, up, write_fleet):
    cluster.nodes(1)
    path = write_fleet(["--grandchild"])
    port = int(re.search(r"controller: {port: (\d+)}", path.read_text())[1])
    fleet = up(path)
    # Where the actor's process takes long to start, it is said to wait first.
    eventually(
        lambda: re.search("w0 is ready|ready: w0", fleet.output),
        within=START_SECONDS,
        what="w0 is ready",
    )
    # The actor's own process can be lost too, without its node: Ray starts it again.
    worker = psutil.Process(next(pid for pid in processes_of(port) if _is_worker(pid)))
    cluster.kill_an_actor()
    fleet.wait_for_line("w0 is back", within=START_SECONDS)
    eventually(
        lambda: not is_running(worker.pid), within=START_SECONDS, what="the first worker's end"
    )
    pids = processes_of(port)
    assert any(_is_worker(pid) for pid in pids)
    os.kill(fleet.supervisor_pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_running, pids)), within=START_SECONDS, what="no orphans")


def test_a_worker_that_never_serves_stays_down_with_its_last_lines(cluster, up, write_fleet):
    cluster.nodes(2)
    fleet = up(write_fleet(["--exit-with", "2", "--say", "I cannot"], []))
    fleet.wait_for_line("Not w0: it refused to start", within=START_SECONDS)
    fleet.wait_for_line("w0         |   I cannot")
    assert "Paragone is ready: w1" in fleet.output
    assert fleet.stop() == 0


def _is_worker(pid: int) -> bool:
    try:
        return "--model-name" in psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return False
