"""A thousand requests that are given up at random, on a real model: nothing of them is left."""

import asyncio
import gc
import random
import sys
import threading
from contextlib import aclosing, suppress
from dataclasses import replace

import pytest
from PIL import Image

from tests.crowd import crowd
from tests.engine.engines import text_of
from tests.engine.tensors import tensor_bytes
from tests.engine.test_transformers_model import loaded, request
from tests.waiting import until
from worker.engine.batched import BatchedEngine
from worker.engine.protocol import Finished
from worker.engine.slot_model import SlotModel

pytestmark = pytest.mark.anyio

REQUESTS, AT_ONCE, CAPACITY, WAITING = 1_000, 48, 12, 200
KV_TOKENS, PREFIX_TOKENS, IMAGE_BYTES = 2_048, 1_024, 200_000
# Objects that Python and the libraries may keep in caches of their own; less than one a request.
SPARE_BLOCKS = 700


def asked_of(chance):
    """A request: text alone, an image that came before, or one that never did; drawn or greedy."""
    kind = chance.random()
    text = "word " * chance.randrange(1, 25)
    sampling = chance.choice(
        [
            {"temperature": 0.0},
            {"temperature": 1.0, "seed": 3, "top_p": 0.9, "frequency_penalty": 0.3},
            {"temperature": 1.0, "logprobs": 2, "min_tokens": 4},
        ]
    )
    # Without a length, memory is taken for a beginning, and the newest may have to give way.
    max_tokens = chance.choice([None, chance.randrange(1, 40)])
    if kind < 0.5:
        return request(text, max_tokens=max_tokens, **sampling)
    asked = request(
        text, chance.choice(["wide", "tall", "square"]), max_tokens=max_tokens, **sampling
    )
    if kind < 0.75:
        return asked
    noise = Image.frombytes("RGB", (40, 40), chance.randbytes(3 * 40 * 40))
    return replace(asked, images=(noise,))


async def client(engine, chance):
    """Asks, and gives up: by cancellation at some moment, or by closing after some events."""
    asked = asked_of(chance)
    if chance.random() < 0.5:
        task = asyncio.create_task(text_of(engine, asked))
        await asyncio.sleep(chance.expovariate(1 / 0.02))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return
    events_wanted = chance.randrange(12)
    async with aclosing(engine.generate(asked)) as events:
        async for event in events:
            events_wanted -= 1
            if events_wanted < 0 or isinstance(event, Finished):
                return


async def gone_through(engine, chance, count):
    """Once so many clients have come and gone."""
    await crowd(lambda: client(engine, chance), count=count, at_once=AT_ONCE)
    await until(lambda: engine.stats().running == 0)


async def test_a_thousand_requests_given_up_at_random_leave_nothing():
    chance = random.Random(1)
    model = SlotModel(
        loaded("llava-v1.5-tiny"),
        kv_tokens=KV_TOKENS,
        prefix_tokens=PREFIX_TOKENS,
        image_cache_bytes=IMAGE_BYTES,
    )
    engine = BatchedEngine(model, capacity=CAPACITY, max_waiting=WAITING, kv_tokens=KV_TOKENS)
    before_tasks = asyncio.all_tasks()
    try:
        # The first ones fill what is bounded, and make whatever is made once.
        await gone_through(engine, chance, REQUESTS // 4)
        model.release_caches()
        weights_and_caches, threads = tensor_bytes(), set(threading.enumerate())
        blocks = sys.getallocatedblocks()

        await gone_through(engine, chance, REQUESTS - REQUESTS // 4)
        assert (engine.stats().running, engine.stats().waiting) == (0, 0)
        assert engine._jobs == {}
        assert not engine._batch
        assert engine._inbox.empty()
        assert engine._errands.empty()
        assert model._slots == []
        assert model._reading_tokens == 0
        model.rest()
        assert model.kv_reserved_tokens == 0
        stats = model.cache_stats()
        assert stats.kv_used_tokens == model._prefixes.tokens <= PREFIX_TOKENS
        assert stats.image_bytes <= IMAGE_BYTES
        assert set(threading.enumerate()) == threads
        await until(lambda: asyncio.all_tasks() == before_tasks)
        model.release_caches()
        assert model.cache_stats().kv_used_tokens == 0
        assert tensor_bytes() == weights_and_caches
        gc.collect()
        assert sys.getallocatedblocks() - blocks < SPARE_BLOCKS
        # And it still answers.
        assert await text_of(engine, request("Hello", max_tokens=8)) is not None
    finally:
        await engine.aclose()
