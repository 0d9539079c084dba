"""FastChat itself as a peer, where somebody has it: ``PARAGONE_FASTCHAT_PYTHON`` names its Python.

``python -m venv /tmp/fschat``, then install ``fschat==0.2.36`` with fastapi, uvicorn, requests,
aiohttp, httpx, tiktoken, shortuuid, rich, prompt_toolkit, markdown2, nh3 and pydantic-settings.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from controller.chassis.serve import listen
from controller.protocol.fleet import ModelCard, ModelFacts
from tests.controller.conftest import running_controller
from tests.engine.fake_model import FakeModel
from tests.waiting import until
from tests.worker.servers import running_worker

PYTHON = os.environ.get("PARAGONE_FASTCHAT_PYTHON")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(PYTHON is None, reason="PARAGONE_FASTCHAT_PYTHON names no FastChat"),
]


@dataclass
class Vicuna(FakeModel):
    name: str = "vicuna-7b"

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        facts = ModelFacts(language_model="llama", template="vicuna_v1")
        return (ModelCard(name=self.name, context_length=self.context_length, facts=facts),)


@asynccontextmanager
async def fastchat(program: str, *flags: str) -> AsyncIterator[str]:
    folder = tempfile.mkdtemp()  # it writes its logs to where it is started
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), "-m", f"fastchat.serve.{program}", "--port", str(port), *flags,
        cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as client, asyncio.timeout(60):
            while True:
                try:
                    await client.get(url)
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(folder)


async def models_of(client: httpx.AsyncClient, controller: str) -> list[str]:
    return (await client.post(f"{controller}/list_models")).json()["models"]


async def test_our_worker_serves_behind_fastchats_controller() -> None:
    async with (
        fastchat("controller") as controller,
        running_worker(Vicuna(), controllers=(controller,)) as running,
    ):
        async with asyncio.timeout(60):
            while await models_of(running.client, controller) != ["vicuna-7b"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        reply = await running.client.post(
            f"{controller}/worker_generate_stream",
            json={"model": "vicuna-7b", "prompt": "hi", "echo": False, "stop": []},
        )
        assert b'"text": "You said: hi"' in reply.content.split(b"\0")[-2]


async def test_fastchats_controller_is_a_worker_of_ours() -> None:
    async with (
        fastchat("controller") as below,
        running_worker(Vicuna(), controllers=(below,)),
        running_controller() as fleet,
    ):
        async with asyncio.timeout(60):
            while await models_of(fleet.client, below) != ["vicuna-7b"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        message = {"worker_name": below, "check_heart_beat": False, "worker_status": None}
        assert (await fleet.client.post("/register_worker", json=message)).status_code == 200
        answer = (await fleet.ask("vicuna-7b")).json()
        assert "USER: What is here? ASSISTANT:" in answer["choices"][0]["message"]["content"]


async def test_fastchats_api_server_serves_from_our_fleet() -> None:
    async with (
        running_controller() as fleet,
        running_worker(Vicuna(), controllers=(fleet.url,)),
        fastchat("openai_api_server", "--controller-address", fleet.url) as api,
    ):
        await until(lambda: fleet.registry.models().data)
        body = {"model": "vicuna-7b", "messages": [{"role": "user", "content": "hi"}]}
        whole = await fleet.client.post(f"{api}/v1/chat/completions", json=body)
        assert whole.status_code == 200, whole.text
        assert "USER: hi ASSISTANT:" in whole.json()["choices"][0]["message"]["content"]
