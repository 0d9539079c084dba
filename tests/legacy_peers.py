"""LLaVA's controller and worker, and FastChat's, as far as others see them on the wire.

Written after LLaVA ``llava/serve/{controller,model_worker}.py`` (2024-05) and FastChat 0.2.36: what
they require, answer and leave out is theirs; models and clocks are not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from controller.chassis.serve import Server, listen
from tests.waiting import until

SERVER_ERROR = (
    "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"  # LLaVA's
)


@asynccontextmanager
async def serving(app: FastAPI, port: int = 0) -> AsyncIterator[str]:
    """An application on a real port; its address."""
    sock = listen("127.0.0.1", port)
    server = Server(app, grace_seconds=1)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass
class LlavaWorker:
    """``model_worker.py``: echoes the prompt in every frame, says nothing of the end."""

    name: str = "llava-v1.5-7b"
    words: tuple[str, ...] = (" Two", " red", " squares", ".</s>")
    word_seconds: float = 0.0
    error_code: int = 0  # of the only frame
    breaks_off: bool = False  # ends inside a frame
    received: list[dict[str, Any]] = field(default_factory=list)
    status_requests: int = 0

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/worker_get_status")
        async def get_status() -> dict[str, Any]:
            self.status_requests += 1
            return {"model_names": [self.name], "speed": 1, "queue_length": 0}

        @app.post("/worker_generate_stream")
        async def generate_stream(request: Request) -> StreamingResponse:
            self.received.append(await request.json())
            return StreamingResponse(self._stream(self.received[-1]))

        return app

    async def _stream(self, params: dict[str, Any]) -> AsyncIterator[bytes]:
        prompt, stop, images = params["prompt"], params.get("stop"), params.get("images", [])
        # The original dies of a stop that is no string, and of too few or too many images.
        is_wrong = not isinstance(stop, str) or len(images) != prompt.count("<image>")
        if is_wrong or self.error_code:
            yield self._frame(SERVER_ERROR, self.error_code or 1)
            return
        text = ""
        for word in self.words:
            text += word
            await asyncio.sleep(self.word_seconds)
            text = text.removesuffix(stop)
            frame = self._frame(prompt + text, 0)
            if self.breaks_off:
                yield frame[:-10]
                return
            yield frame

    @staticmethod
    def _frame(text: str, error_code: int) -> bytes:
        return json.dumps({"text": text, "error_code": error_code}).encode() + b"\0"


@dataclass
class FastChatWorker(LlavaWorker):
    """FastChat's: no echo where it is told so, usage, a reason for the end, a template."""

    name: str = "vicuna-7b-v1.5"
    words: tuple[str, ...] = ("Two", " red", " squares.")

    @property
    def app(self) -> FastAPI:
        app = super().app

        @app.post("/worker_get_conv_template")
        async def get_conv_template(request: Request) -> dict[str, Any]:
            assert (await request.json())["model"] == self.name
            return {
                "conv": {
                    "name": "one_shot",
                    "system_template": "{system_message}",
                    "system_message": "Be brief.",
                    "roles": ["Human", "Assistant"],
                    "messages": [["Human", "Hi"], ["Assistant", None]],
                    "offset": 0,
                    "sep_style": 1,
                    "sep": "\n### ",
                    "sep2": None,
                    "stop_str": "###",
                    "stop_token_ids": None,
                }
            }

        return app

    async def _stream(self, params: dict[str, Any]) -> AsyncIterator[bytes]:
        text = params["prompt"] if params.get("echo", True) else ""
        frame: dict[str, Any] = {}
        for word in self.words:
            text += word
            frame = {
                "text": text,
                "error_code": 0,
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
                "finish_reason": None,
            }
            yield json.dumps(frame).encode() + b"\0"
        yield json.dumps({**frame, "finish_reason": "length"}).encode() + b"\0"


@dataclass
class LlavaController:
    """``controller.py``: a table of workers, shortest queue, a proxy that waits 5 s for each piece.

    Its lists are what workers said of themselves; it asks nobody but where it must.
    """

    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    beats: list[dict[str, Any]] = field(default_factory=list)
    forgets: bool = False  # as after a restart

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/register_worker")
        async def register_worker(request: Request) -> None:
            data = await request.json()
            name, status = data["worker_name"], data.get("worker_status", None)
            data["check_heart_beat"]
            if status is None:
                async with httpx.AsyncClient(timeout=60) as client:
                    reply = await client.post(name + "/worker_get_status")
                assert reply.status_code == 200
                status = reply.json()
            self.workers[name] = {
                "model_names": status["model_names"],
                "speed": status["speed"],
                "queue_length": status["queue_length"],
            }

        @app.post("/receive_heart_beat")
        async def receive_heart_beat(request: Request) -> dict[str, bool]:
            data = await request.json()
            self.beats.append(data)
            if self.forgets:
                self.forgets = False
                self.workers.clear()
            if data["worker_name"] not in self.workers:
                return {"exist": False}
            self.workers[data["worker_name"]]["queue_length"] = data["queue_length"]
            return {"exist": True}

        @app.post("/list_models")
        async def list_models() -> dict[str, list[str]]:
            return {"models": sorted({n for w in self.workers.values() for n in w["model_names"]})}

        @app.post("/get_worker_address")
        async def get_worker_address(request: Request) -> dict[str, str]:
            return {"address": self.choose((await request.json())["model"])}

        @app.post("/worker_generate_stream")
        async def generate_stream(request: Request) -> StreamingResponse:
            params = await request.json()
            return StreamingResponse(self._proxy(params))

        @app.post("/worker_get_status")
        async def worker_get_status() -> dict[str, Any]:
            return {
                "model_names": [n for w in self.workers.values() for n in w["model_names"]],
                "speed": sum(w["speed"] for w in self.workers.values()),
                "queue_length": sum(w["queue_length"] for w in self.workers.values()),
            }

        return app

    def choose(self, model: str) -> str:
        fitting = [n for n, w in self.workers.items() if model in w["model_names"]]
        if not fitting:
            return ""
        return min(
            fitting, key=lambda n: self.workers[n]["queue_length"] / self.workers[n]["speed"]
        )

    async def _proxy(self, params: dict[str, Any]) -> AsyncIterator[bytes]:
        address = self.choose(params["model"])
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", address + "/worker_generate_stream", json=params) as reply,
        ):
            async for piece in reply.aiter_raw():
                yield piece


async def read_stream(reply: httpx.Response) -> list[dict[str, Any]]:
    """All frames of a stream, as ``iter_lines(delimiter=b"\\0")`` gives them to legacy clients."""
    content = await reply.aread()
    assert content.endswith(b"\0"), "the last frame has its NUL too"
    return [json.loads(piece.decode()) for piece in content.split(b"\0") if piece]


class LlavaPage:
    """The part of ``gradio_web_server.py`` that talks: models, an address, a stream."""

    def __init__(self, controller: str, client: httpx.AsyncClient) -> None:
        self._controller = controller
        self._client = client

    async def models(self) -> list[str]:
        assert (await self._client.post(self._controller + "/refresh_all_workers")).is_success
        reply = await self._client.post(self._controller + "/list_models")
        return reply.json()["models"]

    async def address(self, model: str) -> str:
        reply = await self._client.post(
            self._controller + "/get_worker_address", json={"model": model}
        )
        return reply.json()["address"]

    async def ask(
        self, address: str, prompt: str, model: str, images: Sequence[str] = (), stop: str = "</s>"
    ) -> list[str]:
        """What it would have shown, frame by frame; raises on an error code, as it stops there."""
        pload = {
            "model": model,
            "prompt": prompt,
            "temperature": 0.2,
            "top_p": 0.7,
            "max_new_tokens": 512,
            "stop": stop,
            "images": list(images),
        }
        shown = []
        # 10 s between pieces, as there.
        async with self._client.stream(
            "POST",
            address + "/worker_generate_stream",
            headers={"User-Agent": "LLaVA Client"},
            json=pload,
            timeout=10,
        ) as reply:
            for data in await read_stream(reply):
                if data["error_code"] != 0:
                    raise RuntimeError(data["text"] + f" (error_code: {data['error_code']})")
                assert data["text"].startswith(prompt)
                shown.append(data["text"][len(prompt) :].strip())
        return shown
