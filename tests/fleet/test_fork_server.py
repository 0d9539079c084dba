"""A fork server and the processes that it forks, each a real one."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from controller.fleet.adopted import become_adopter
from controller.fleet.child import Child
from controller.fleet.fork_server import ForkServer, ForkServerError
from controller.fleet.groups import ProcessGroups
from controller.protocol.forking import ForkReply, ForkRequest
from tests.fleet.running import is_running
from tests.waiting import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux adopts orphans"),
]

COMMAND = (sys.executable, str(Path(__file__).with_name("forking_process.py")))
ROOM = "." * 2000
PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def adopter() -> Iterator[None]:
    """This process adopts orphans meanwhile, as a supervisor does."""
    assert become_adopter()
    yield
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


class Server:
    """A fork server with what its processes say."""

    def __init__(self, server: ForkServer) -> None:
        self.server = server
        self.said: list[str] = []

    async def run(self, code: str, env: Mapping[str, str] | None = None) -> Child:
        return await self.server.fork(
            [code], env={**os.environ, **(env or {})}, on_line=self.said.append
        )


@asynccontextmanager
async def running(modules: str = "", **more: str) -> AsyncIterator[Server]:
    # Unbuffered, as fleets start them.
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **more}
    with ProcessGroups() as groups:
        server = await ForkServer.start(
            env=env, on_line=print, groups=groups, command=(*COMMAND, modules, ROOM)
        )
        try:
            yield Server(server)
        finally:
            await server.close()


async def test_a_forked_process_is_this_ones_child_and_leads_a_session_of_its_own():
    async with running() as server:
        child = await server.run("import os; print(os.getpid(), os.getsid(0), os.getppid())")
        assert await child.wait() == 0
        assert child.pid != server.server.pid
        assert server.said == [f"{child.pid} {child.pid} {os.getpid()}"]


async def test_each_has_its_own_environment_output_and_arguments_and_reads_nothing():
    code = "import os, sys; print(os.environ['NAME'], sys.stdin.read() == '')"
    code += "; sys.stderr.write(str(len(sys.argv)) + str('OTHER' in os.environ))"
    async with running() as server:
        first = await server.server.fork(
            [code], env={"NAME": "first", "OTHER": ""}, on_line=server.said.append
        )
        said: list[str] = []
        second = await server.server.fork([code], env={"NAME": "second"}, on_line=said.append)
        assert (await first.wait(), await second.wait()) == (0, 0)
    assert server.said == ["first True", "2True"]
    assert said == ["second True", "2False"]


@pytest.mark.parametrize(
    ("code", "status", "last_line"),
    [
        ("pass", 0, None),
        ("import sys; sys.exit(3)", 3, None),
        ("import sys; sys.exit('no')", 1, "no"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", -9, None),
    ],
)
async def test_its_exit_status_arrives(code: str, status: int, last_line: str | None):
    async with running() as server:
        child = await server.run(code)
        assert await child.wait() == status
    assert (server.said or [None])[-1] == last_line


async def test_it_heeds_signals_though_the_fork_server_does_not():
    async with running() as server:
        child = await server.run("import time; print('up'); time.sleep(1000)")
        await until(lambda: server.said)
        os.kill(server.server.pid, signal.SIGTERM)
        assert await child.stop(grace_seconds=60, hurry=asyncio.Event()) == -signal.SIGTERM
        assert server.server.is_alive


async def test_it_has_no_descriptors_but_its_own():
    code = "import os; fds = os.listdir('/proc/self/fd')\n"
    code += "print(sorted(int(fd) for fd in fds if os.path.exists(f'/proc/self/fd/{fd}')))"
    async with running() as server:
        child = await server.run(code)
        assert await child.wait() == 0
    assert server.said == ["[0, 1, 2]"]


async def test_it_is_called_what_a_worker_started_by_itself_is_called():
    async with running() as server:
        child = await server.run("import time; print('up'); time.sleep(1000)")
        await until(lambda: server.said)
        words = psutil.Process(child.pid).cmdline()
        assert words[:4] == [sys.executable, "-m", "worker", "import"]
        child.kill()
        await child.wait()


async def test_each_has_random_numbers_of_its_own():
    code = "import random, numpy; print(random.random(), numpy.random.random())"
    async with running("numpy.random") as server:
        for _ in range(2):
            assert await (await server.run(code)).wait() == 0
    first, second = (line.split() for line in server.said)
    assert first[0] != second[0]
    assert first[1] != second[1]


async def test_each_computes_with_its_own_number_of_threads():
    code = """
import os, torch
torch.set_num_threads({threads})
ones = torch.ones(1000, 1000)
assert (ones @ ones)[0, 0] == 1000 and ones.relu().sum() == 1e6
started = len(os.listdir("/proc/self/task"))
print(torch.get_num_threads(), started if started < {threads} or {threads} == 1 else "enough")
"""
    async with running("torch") as server:
        for threads in (1, 3):
            child = await server.run(code.format(threads=threads))
            assert await child.wait() == 0
    assert server.said == ["1 1", "3 enough"]


async def test_nothing_is_forked_while_the_fork_server_runs_threads(tmp_path: Path):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
    )
    async with running("threaded", PYTHONPATH=str(tmp_path)) as server:
        with pytest.raises(ForkServerError, match="runs threads"):
            await server.run("pass")


async def test_threads_that_a_library_ends_before_a_fork_are_no_obstacle():
    code = "import numpy; ones = numpy.ones((500, 500)); assert (ones @ ones)[0, 0] == 500"
    async with running("numpy", OMP_NUM_THREADS="2") as server:
        assert await (await server.run(code)).wait() == 0


async def test_what_it_left_behind_is_killed_and_no_zombie():
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)"
    async with running() as server:
        assert await (await server.run(code)).wait() == 0
        assert not psutil.pid_exists(int(server.said[0]))


async def test_a_killed_fork_server_takes_nothing_with_it_and_forks_no_more():
    async with running() as server:
        code = "import sys; print('up'); sys.exit(7 if sys.stdin.read() == '' else 0)"
        waits = "import signal; print('up'); signal.sigwait([signal.SIGUSR1]); raise SystemExit(7)"
        child = await server.run("import signal; signal.pthread_sigmask(0, [10])\n" + waits)
        await until(lambda: server.said)
        os.kill(server.server.pid, signal.SIGKILL)
        await until(lambda: not server.server.is_alive)
        with pytest.raises(ForkServerError):
            await server.run(code)
        os.kill(child.pid, signal.SIGUSR1)
        assert await child.wait() == 7


async def test_a_fork_server_that_is_killed_before_it_answers_is_an_error():
    async with running() as server:
        os.kill(server.server.pid, signal.SIGSTOP)
        asking = asyncio.create_task(server.run("pass"))
        await asyncio.sleep(0)
        os.kill(server.server.pid, signal.SIGKILL)
        with pytest.raises(ForkServerError):
            await asking


async def test_nothing_is_left_of_a_process_that_nobody_waits_for_any_more():
    async with running() as server:
        others = _children()  # the fork server, the guard, and what other tests have
        os.kill(server.server.pid, signal.SIGSTOP)
        asking = asyncio.create_task(server.run("import time; time.sleep(1000)"))
        for _ in range(10):  # until it has asked
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        os.kill(server.server.pid, signal.SIGCONT)
        # Those after it are forked after it.
        assert await (await server.run("pass")).wait() == 0
        await until(lambda: _children() <= others)


async def test_more_than_fits_into_the_socket_waits_for_its_turn():
    async with running() as server:
        os.kill(server.server.pid, signal.SIGSTOP)
        large = {"LARGE": "x" * 60_000}
        asking = [
            asyncio.create_task(server.run("import os; print(len(os.environ['LARGE']))", large))
            for _ in range(10)
        ]
        await asyncio.sleep(0)
        os.kill(server.server.pid, signal.SIGCONT)
        children = await asyncio.gather(*asking)
        assert [await child.wait() for child in children] == [0] * 10
        assert server.said == ["60000"] * 10


def test_a_process_whose_supervisor_has_gone_ends_before_it_begins(tmp_path: Path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, subprocess.Popen([*COMMAND, "", ROOM], stdin=theirs) as server:
        answers, its_answers = socket.socketpair()
        mark = tmp_path / "begun"
        request = ForkRequest(args=(f"open({str(mark)!r}, 'w')",), environ=dict(os.environ))
        with its_answers, (tmp_path / "output").open("wb") as output:
            descriptors = [output.fileno(), its_answers.fileno()]
            socket.send_fds(ours, [request.model_dump_json().encode()], descriptors)
        pid = ForkReply.model_validate_json(answers.recv(4096)).pid
        assert is_running(pid)
        answers.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        assert not mark.exists()
        ours.shutdown(socket.SHUT_RDWR)
        assert server.wait(60) == 0


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}
