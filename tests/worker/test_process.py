"""``python -m worker`` as a process: how it starts, how it fails, how it stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from controller.chassis.serve import listen
from controller.protocol import sse
from controller.protocol.chat import ChatCompletionChunk
from tests.worker.servers import FakeController, question, serving

pytestmark = pytest.mark.anyio

ORACLE = Path(__file__).parent.parent / "data" / "oracle"
CHECKPOINT = str(ORACLE / "llava-v1.5-tiny")
NAME = "llava-v1.5-tiny"
ENVIRON = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}


@dataclass
class Process:
    """A worker process; ``log`` is what it has written so far."""

    process: asyncio.subprocess.Process
    log: str = ""

    async def read_until(self, pattern: str) -> re.Match[str]:
        """Reads the log until a line matches."""
        assert self.process.stderr is not None
        async with asyncio.timeout(120):
            while line := (await self.process.stderr.readline()).decode():
                self.log += line
                if match := re.search(pattern, line):
                    return match
        raise AssertionError(f"the process ended; its log:\n{self.log}")

    async def end(self) -> int:
        """The exit code; the rest of the log is read."""
        assert self.process.stderr is not None
        async with asyncio.timeout(120):
            self.log += (await self.process.stderr.read()).decode()
            return await self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@asynccontextmanager
async def worker(*flags: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *flags,
        "--log-format=pretty",
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | ENVIRON,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def ready_worker(*flags: str) -> AsyncIterator[tuple[Process, str]]:
    """A worker that has loaded the tiny checkpoint, and its address."""
    async with worker("--model-path", CHECKPOINT, "--port=0", *flags) as process:
        address = (await process.read_until(r"listens on (http://\S+)"))[1]
        await process.read_until("is ready")
        yield process, address


async def rest_of(decoder: sse.Decoder, pieces: AsyncIterator[bytes]) -> list[sse.Event]:
    return [event async for piece in pieces for event in decoder.feed(piece)]


async def test_it_answers_while_it_loads_and_finishes_what_runs_before_it_ends():
    controller = FakeController()
    async with (
        serving(controller.app) as controller_address,
        worker(
            "--model-path", CHECKPOINT, "--port=0", "--controller", controller_address
        ) as process,
    ):
        address = (await process.read_until(r"listens on (http://\S+)"))[1]
        async with httpx.AsyncClient(base_url=address, timeout=120) as client:
            assert (await client.get("/health")).status_code == 200
            loading = await client.post("/v1/chat/completions", json=question(model=NAME))
            assert loading.status_code == 503
            assert loading.json()["error"]["code"] == "model_loading"
            await process.read_until("is ready")
            asked = question(model=NAME, stream=True, max_tokens=300, temperature=0)
            async with client.stream("POST", "/v1/chat/completions", json=asked) as reply:
                pieces, decoder = reply.aiter_bytes(), sse.Decoder()
                events = list(decoder.feed(await anext(pieces)))
                process.stop()
                events += await rest_of(decoder, pieces)
        assert events[-1].data == "[DONE]"
        last = ChatCompletionChunk.model_validate_json(events[-2].data)
        assert last.choices[0].finish_reason in {"stop", "length"}
        assert await process.end() == 0
    assert len(controller.drained) == 1
    assert "Traceback" not in process.log


async def test_an_answer_that_outlasts_the_grace_period_is_cut_off_and_told():
    async with (
        ready_worker("--no-register", "--grace-seconds=0") as (process, address),
        httpx.AsyncClient(base_url=address, timeout=120) as client,
        client.stream(
            "POST",
            "/v1/chat/completions",
            json=question(model=NAME, stream=True, temperature=1, seed=1, ignore_eos=True),
        ) as reply,
    ):
        pieces, decoder = reply.aiter_bytes(), sse.Decoder()
        events = list(decoder.feed(await anext(pieces)))
        process.stop()
        events += await rest_of(decoder, pieces)
        last = ChatCompletionChunk.model_validate_json(events[-2].data)
        assert last.choices[0].finish_reason == "abort"
        assert await process.end() == 0


async def test_a_stop_while_it_loads_is_quick_and_clean():
    async with worker("--model-path", CHECKPOINT, "--port=0", "--no-register") as process:
        await process.read_until("listens on")
        await process.read_until("startup complete")
        process.stop()
        assert await process.end() == 0
        assert "Traceback" not in process.log


async def test_a_checkpoint_that_does_not_load_is_named_and_told_to_the_controller(tmp_path):
    controller = FakeController()
    missing = str(tmp_path / "no-such-model")
    async with (
        serving(controller.app) as address,
        worker("--model-path", missing, "--port=0", "--controller", address) as process,
    ):
        assert await process.end() == 1
    assert controller.states()[-1] == "failed"
    assert missing in (controller.calls[-1][1].status.detail or "")
    (line,) = [line for line in process.log.splitlines() if "cannot be loaded" in line]
    assert missing in line
    assert "Traceback" not in process.log
    assert "importing torch" not in process.log


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--load-8bit", "--load-4bit"], "--load-8bit and --load-4bit"),
        (["--device", "gpu"], "--device"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
async def test_wrong_flags_end_it_before_anything_is_loaded(flags, reason):
    async with worker("--model-path", CHECKPOINT, *flags) as process:
        assert await process.end() == 2
    assert reason in process.log
    assert "Traceback" not in process.log


async def test_a_taken_port_ends_it_before_anything_is_loaded():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        async with worker("--model-path", CHECKPOINT, f"--port={port}") as process:
            assert await process.end() == 2
    assert f"port {port}" in process.log
    assert "loading" not in process.log


def test_importing_it_neither_needs_torch_nor_does_anything():
    code = "import worker.__main__, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | ENVIRON)


@pytest.mark.parametrize(("flags", "warns"), [([], True), (["--allow-anonymous"], False)])
async def test_a_worker_beyond_this_machine_starts_and_warns_unless_told_in_words(flags, warns):
    # As LLaVA's published command lines have it; flags may be abbreviated there as here.
    published = ["--host", "0.0.0.0", "--no-register", "--port", "0", "--model-path", CHECKPOINT]
    async with worker(*published, *flags) as process:
        await process.read_until("listens on")
        assert ("this worker asks for no key" in process.log) is warns
