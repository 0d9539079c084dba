"""Many tabs at once, by Gradio's own protocol: each asks its four columns one question."""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

COLUMNS = 4


@dataclass(frozen=True)
class Handlers:
    """What the page's events are called in its protocol."""

    load: dict[str, Any]
    ask: dict[str, Any]
    answer: dict[str, Any]
    conversation: int  # component
    defaults: dict[int, Any]  # values by component


async def find_handlers(session: aiohttp.ClientSession, url: str) -> Handlers:
    async with session.get(url + "/config") as reply:
        config = await reply.json()
    components = {each["id"]: each["props"] for each in config["components"]}
    composer, conversation = (
        next(key for key, props in components.items() if props.get("elem_id") == name)
        for name in ("composer", "conversation-id")
    )
    events = config["dependencies"]
    ask = next(each for each in events if [composer, "submit"] in each["targets"])
    load = next(each for each in events if any(name == "load" for _, name in each["targets"]))
    answer = next(each for each in events if each.get("trigger_after") == ask["id"])
    defaults = {key: props.get("value") for key, props in components.items()}
    return Handlers(load, ask, answer, conversation, defaults | {composer: "composer"})


async def ask_all(url: str, *, tabs: int) -> list[float]:
    """Seconds from the question to the end of the answers, by tab."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        async with session.get(url) as reply:  # the cookie
            await reply.read()
        handlers = await find_handlers(session, url)
        ready = [await _prepare(session, url, handlers) for _ in range(tabs)]
        return await asyncio.gather(*(_answer(session, url, handlers, *each) for each in ready))


async def _prepare(session: aiohttp.ClientSession, url: str, handlers: Handlers) -> tuple[str, str]:
    tab = secrets.token_hex(6)
    values = dict(handlers.defaults)

    async def run(event: dict[str, Any]) -> None:
        data = [
            {"text": "What is it?", "files": []} if values.get(key) == "composer" else values[key]
            for key in event["inputs"]
        ]
        body = {"fn_index": event["id"], "data": data, "session_hash": tab}
        async with session.post(url + "/gradio_api/run/predict", json=body) as reply:
            reply.raise_for_status()
            results = (await reply.json())["data"]
        for key, result in zip(event["outputs"], results, strict=True):
            if values.get(key) == "composer":
                continue
            if not (isinstance(result, dict) and result.get("__type__") == "update"):
                values[key] = result
            elif "value" in result:
                values[key] = result["value"]

    await run(handlers.load)
    await run(handlers.ask)
    return tab, values[handlers.conversation]


async def _answer(
    session: aiohttp.ClientSession, url: str, handlers: Handlers, tab: str, conversation: str
) -> float:
    began = time.monotonic()
    body = {"fn_index": handlers.answer["id"], "data": [conversation, None], "session_hash": tab}
    async with session.post(url + "/gradio_api/queue/join", json=body) as reply:
        reply.raise_for_status()
    params = {"session_hash": tab}
    async with session.get(url + "/gradio_api/queue/data", params=params) as reply:
        async for line in reply.content:
            if not line.startswith(b"data: "):
                continue
            if b'"process_completed"' in line:
                if not json.loads(line[6:])["success"]:
                    raise RuntimeError(line.decode()[:300])
                return time.monotonic() - began
    raise RuntimeError("the stream ended without its end")


def slowdown(seconds: list[float], ideal: float) -> float:
    """Of the median tab."""
    return statistics.median(seconds) / ideal
