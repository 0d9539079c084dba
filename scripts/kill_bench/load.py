"""Clients that ask a fleet all the time, streams and short requests, and what came of each."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import httpx

PICTURE = Path(__file__).parents[2] / "webui" / "examples" / "three-shapes.png"
PATIENCE_SECONDS = 60.0  # whoever hears nothing for so long was forgotten
PAUSE_SECONDS = 0.1  # between a client's requests


class End(Enum):
    """How a request ended for its client."""

    ANSWERED = "answered"
    TYPED = "a typed error"  # as a status, or as an event in a stream that had begun
    CUT = "a connection error"
    LOST = "lost"  # nothing, or nothing that says why


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has ended; times are of the monotonic clock."""

    model: str
    streams: bool
    started: float
    ended: float
    end: End
    what: str  # the answer, the error's code, or what else came


def question(model: str, *, stream: bool) -> dict[str, Any]:
    """A stream describes a picture; a short request says a few words."""
    data = base64.b64encode(PICTURE.read_bytes()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    text = {"type": "text", "text": "Describe the image." if stream else "What can you do?"}
    return {
        "model": model,
        "stream": stream,
        "temperature": 0,
        "max_tokens": 100 if stream else 4,
        "messages": [{"role": "user", "content": [image, text] if stream else [text]}],
    }


@dataclass
class Load:
    """A client that streams and one that asks shortly, for each model; all through one address."""

    url: str
    models: list[str]
    ended: list[Request] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Asks until ``stop`` is set, then waits for what is open."""
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS, limits=limits) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for model in self.models:
                for stream in (True, False):
                    tasks.create_task(self._keep_asking(client, model, stream, stop))

    async def _keep_asking(
        self, client: httpx.AsyncClient, model: str, stream: bool, stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            self.ended.append(await ask(client, self.url, model, stream=stream))
            await asyncio.sleep(PAUSE_SECONDS)


async def ask(client: httpx.AsyncClient, url: str, model: str, *, stream: bool) -> Request:
    """One request, and how it ended."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            end, what = await _ask(client, url, question(model, stream=stream))
    except TimeoutError:
        end, what = End.LOST, f"nothing for {PATIENCE_SECONDS:g} s"
    except httpx.TimeoutException as exc:
        end, what = End.LOST, type(exc).__name__
    except httpx.TransportError as exc:
        end, what = End.CUT, type(exc).__name__
    return Request(model, stream, started, time.monotonic(), end, what)


async def _ask(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[End, str]:
    reply = await client.post(f"{url}/v1/chat/completions", json=body)
    if reply.status_code != httpx.codes.OK:
        return _failed(reply.text, str(reply.status_code))
    if not body["stream"]:
        return End.ANSWERED, reply.json()["choices"][0]["message"]["content"]
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if "data: " in line]
    if not events:
        return End.LOST, "an empty stream"
    if events[-1] != "[DONE]":
        return _failed(events[-1], "a stream without an end")
    chunks = [json.loads(event)["choices"] for event in events[:-1]]
    return End.ANSWERED, "".join(c["delta"].get("content") or "" for cs in chunks for c in cs)


def _failed(text: str, otherwise: str) -> tuple[End, str]:
    """By the error's code; one that only says that something went wrong is as good as none."""
    try:
        body = json.loads(text)
    except ValueError:
        return End.LOST, f"{otherwise}: {text[:80]!r}"
    error = body.get("error") if isinstance(body, Mapping) else None
    code = error.get("code") if isinstance(error, Mapping) else None
    if not code or code == "internal_error":
        return End.LOST, f"{otherwise}: {text[:200]}"
    return End.TYPED, str(code)
