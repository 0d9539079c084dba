"""One process in a group of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from controller.fleet.child import Child
from controller.fleet.groups import ProcessGroups
from controller.fleet.guard import survivors
from tests.fleet.running import PATIENCE_SECONDS, eventually, is_running

pytestmark = pytest.mark.anyio


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def start(code: str, lines: list[str], groups: ProcessGroups) -> Child:
    return await Child.start(
        [sys.executable, "-c", code], env=dict(os.environ), on_line=lines.append, groups=groups
    )


async def test_both_outputs_are_read_to_the_last_line():
    lines: list[str] = []
    code = "import sys; print('out', flush=True); sys.stderr.write('err')"
    with ProcessGroups() as groups:
        child = await start(code, lines, groups)
        assert await child.wait() == 0
    assert lines == ["out", "err"]


async def test_the_status_of_a_killed_process_is_its_signal_negated():
    with ProcessGroups() as groups:
        child = await start("import os; os.kill(os.getpid(), 9)", [], groups)
        assert await child.wait() == -9


async def test_it_leads_its_own_session_and_reads_nothing():
    lines: list[str] = []
    code = "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()))"
    with ProcessGroups() as groups:
        child = await start(code, lines, groups)
        await child.wait()
    assert lines == ["True ''"]


async def test_the_end_of_a_process_does_not_wait_for_what_it_left_behind():
    lines: list[str] = []
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid, flush=True)"
    with ProcessGroups() as groups:
        child = await start(code, lines, groups)
        async with asyncio.timeout(PATIENCE_SECONDS):  # and what it left takes 1000 s
            assert await child.wait() == 0
    eventually(lambda: not is_running(int(lines[0])), what="the end of what was killed with it")


async def test_stop_waits_for_the_grace_and_no_longer():
    lines: list[str] = []
    code = "import signal, time; signal.signal(15, lambda *_: print('asked', flush=True))\n"
    code += "print('up', flush=True)\nwhile True: time.sleep(1)"
    with ProcessGroups() as groups:
        child = await start(code, lines, groups)
        while not lines:  # noqa: ASYNC110 - it is another process that is waited for
            await asyncio.sleep(0.01)
        started = time.monotonic()
        assert await child.stop(grace_seconds=0.3, hurry=asyncio.Event()) == -9
        assert 0.3 <= time.monotonic() - started < PATIENCE_SECONDS
    assert lines == ["up", "asked"]


async def test_a_command_that_does_not_exist_leaves_no_open_pipe():
    before = open_files()
    with ProcessGroups() as groups, pytest.raises(FileNotFoundError):
        await Child.start(["/nowhere"], env={}, on_line=print, groups=groups)
    assert open_files() == before


def test_the_guard_kills_what_was_announced_and_not_withdrawn():
    assert survivors(["+1\n", "+2\n", "-1\n", "+3\n", "-3\n", "+3\n"]) == {2, 3}
