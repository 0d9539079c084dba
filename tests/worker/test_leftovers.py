"""Clients that hang up at random on a worker with a real model: nothing of them is left."""

import asyncio
import base64
import gc
import json
import random
import sys
import threading
from pathlib import Path

import pytest

from controller.protocol.fleet import ModelCard
from tests.crowd import crowd
from tests.engine.test_transformers_model import ORACLE, loaded
from tests.waiting import until
from tests.worker.servers import serving
from worker.app import Worker
from worker.engine.batched import BatchedEngine
from worker.engine.slot_model import SlotModel

pytestmark = pytest.mark.anyio

CLIENTS, AT_ONCE = 200, 24
FILES = Path("/proc/self/fd")
IMAGES = [
    "data:image/png;base64," + base64.b64encode((ORACLE / f"{name}.png").read_bytes()).decode()
    for name in ("wide", "tall", "square")
]


def body_of(chance):
    content = [{"type": "text", "text": "word " * chance.randrange(1, 60)}]
    if chance.random() < 0.5:
        content.insert(0, {"type": "image_url", "image_url": {"url": chance.choice(IMAGES)}})
    return json.dumps(
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": content}],
            "stream": chance.random() < 0.7,
            "n": chance.choice([1, 1, 2]),
            "max_tokens": chance.randrange(1, 60),
            "temperature": chance.choice([0, 1]),
        }
    ).encode()


async def client(port, chance):
    """Sends a request, or a part of it, reads some of the answer or none, and is gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = body_of(chance)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    try:
        if chance.random() < 0.1:
            writer.write(head + body[: chance.randrange(len(body))])
            await writer.drain()
            return
        writer.write(head + body)
        await writer.drain()
        if chance.random() < 0.4:
            await asyncio.sleep(chance.expovariate(1 / 0.03))
            return
        left = chance.randrange(4_000)
        while left > 0 and (part := await reader.read(min(left, 256))):
            left -= len(part)
    finally:
        writer.transport.abort()


def open_files():
    return len(list(FILES.iterdir()))


def threads():
    """All but those of the pool that decodes images, which has a bound of its own."""
    return {each for each in threading.enumerate() if each.name != "AnyIO worker thread"}


@pytest.mark.skipif(not FILES.is_dir(), reason="open files are counted in /proc")
async def test_clients_that_hang_up_at_random_leave_nothing():
    chance = random.Random(2)
    model = SlotModel(loaded("llava-v1.5-tiny"), kv_tokens=4_096, image_cache_bytes=200_000)
    worker = Worker(
        ModelCard(name="tiny"),
        lambda **_calls: BatchedEngine(model, capacity=8, max_waiting=200, kv_tokens=4_096),
        memberships=[],
        worker_id="worker-under-test",
        grace_seconds=0.5,
        on_failure=lambda: None,
    )
    async with serving(worker.app, before_shutdown=worker.leave) as url:
        await until(lambda: worker.lifecycle.not_ready_reason() is None)
        port, engine = int(url.rsplit(":", 1)[1]), worker.lifecycle.engine

        async def is_quiet(tasks, files):
            await until(lambda: engine._jobs == {} and engine.stats().running == 0)
            await until(lambda: len(asyncio.all_tasks()) <= tasks and open_files() <= files)

        tasks, files = len(asyncio.all_tasks()), open_files()
        # What is made once is made.
        await crowd(lambda: client(port, chance), count=CLIENTS // 4, at_once=AT_ONCE)
        await is_quiet(tasks, files)
        gc.collect()
        others, blocks = threads(), sys.getallocatedblocks()
        rest = CLIENTS - CLIENTS // 4
        await crowd(lambda: client(port, chance), count=rest, at_once=AT_ONCE)
        await is_quiet(tasks, files)
        assert not engine._batch
        assert engine.stats().waiting == 0
        assert model._slots == []
        assert model._reading_tokens == 0
        model.rest()
        assert model.kv_reserved_tokens == 0
        assert model.cache_stats().image_bytes <= 200_000
        assert threads() == others
        model.release_caches()
        gc.collect()
        assert sys.getallocatedblocks() - blocks < CLIENTS // 2  # less than an object a client
