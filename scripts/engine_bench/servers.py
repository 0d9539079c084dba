"""The servers that are measured, each a process on a port of its own."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from controller.chassis.serve import listen

OURS, ORACLE, PEER = "batched", "sequential", "transformers serve"
START_SECONDS = 180.0
STOP_SECONDS = 10.0


class BenchError(Exception):
    """A server did not do what it should."""


@dataclass(frozen=True, slots=True)
class Server:
    """How one is started, with ``{port}`` for its port.

    Args:
        name: what it is called in the report.
        command: the program and its arguments.
        model: what its requests call the model.
        ready: the path that answers 200 once the model is loaded.
    """

    name: str
    command: tuple[str, ...]
    model: str
    ready: str


@dataclass(frozen=True, slots=True)
class Running:
    """One that is ready."""

    model: str
    client: httpx.AsyncClient

    async def ask(self, question: dict[str, object]) -> tuple[str, int]:
        """The answer to a request, and its number of tokens."""
        reply = await self.client.post(
            "/v1/chat/completions", json={**question, "model": self.model}
        )
        if reply.status_code != httpx.codes.OK:
            raise BenchError(f"{self.model} answered {reply.status_code}: {reply.text[:500]}")
        body = reply.json()
        return body["choices"][0]["message"]["content"], body["usage"]["completion_tokens"]


def ours(engine: str, folder: Path, capacity: int) -> Server:
    """A worker with this engine, answering so many requests at once."""
    command = (
        *(sys.executable, "-m", "worker", "--no-register", "--port", "{port}"),
        *("--device", "cpu", "--dtype", "float32"),
        *("--model-path", str(folder), "--model-name", "bench"),
        *("--engine", engine, "--limit-model-concurrency", str(capacity)),
    )
    return Server(engine, command, model="bench", ready="/ready")


def peer(python: str, folder: Path) -> Server:
    """``transformers serve --continuous-batching`` of this interpreter's environment."""
    command = (
        *(python, "-m", "transformers.cli.transformers", "serve", str(folder)),
        *("--continuous-batching", "--device", "cpu", "--dtype", "float32"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    )
    return Server(PEER, command, model=str(folder), ready="/health")


async def peer_version(python: str) -> str:
    """The version of transformers that would serve.

    Raises:
        BenchError: it cannot; the message says what is missing.
    """
    probe = (
        "import transformers; from transformers.utils.import_utils import is_serve_available as ok;"
        "from transformers.cli.serve import Serve;"
        "assert ok(), 'it lacks what serving needs: pip install transformers[serving]';"
        "print(transformers.__version__)"
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", probe), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise BenchError(f"{python} cannot be run: {error.strerror}") from error
    said, complained = await process.communicate()
    if process.returncode != 0:
        raise BenchError(complained.decode(errors="replace").strip().splitlines()[-1])
    return said.decode().strip().splitlines()[-1]


async def peer_if_any(python: str, folder: Path) -> tuple[list[Server], str]:
    """The peer, or none, and what the report says of it."""
    try:
        version = await peer_version(python)
    except BenchError as error:
        return [], f"{PEER} is absent: {error}"
    return [peer(python, folder)], f"{PEER} {version} --continuous-batching"


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Running]:
    """The server, once it is ready; stopped at the end.

    Raises:
        BenchError: it did not become ready; the message ends with what it last wrote.
    """
    with listen("127.0.0.1", 0) as sock:
        port = str(sock.getsockname()[1])
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(part.replace("{port}", port) for part in server.command), stdout=log, stderr=log
        )
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
                until = time.monotonic() + START_SECONDS
                while not await _is_ready(client, server.ready):
                    if process.returncode is not None or time.monotonic() > until:
                        log.seek(0)
                        last = log.read().decode(errors="replace").strip()[-2000:]
                        raise BenchError(f"{server.name} did not become ready:\n{last}")
                    await asyncio.sleep(0.2)
                yield Running(server.model, client)
        finally:
            await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _is_ready(client: httpx.AsyncClient, path: str) -> bool:
    try:
        return (await client.get(path)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
