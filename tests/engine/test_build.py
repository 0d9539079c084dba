"""Which engine a checkpoint gets, and that both give the same answers."""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch

from tests.engine.test_transformers_model import ORACLE, request
from worker.checkpoint.spec import LoadSpec
from worker.engine.batched import BatchedEngine
from worker.engine.build import build_engine
from worker.engine.packed_linear import can_pack
from worker.engine.protocol import CacheMemory, TextDelta
from worker.engine.sequential import SequentialEngine

SPEC = LoadSpec(str(ORACLE / "llava-v1.5-tiny"), model_name="tiny", device="cpu", dtype="float32")


def build(engine, spec=SPEC, *, memory=CacheMemory(), **options):  # noqa: B008 - frozen
    torch.set_num_threads(1)
    return build_engine(
        spec,
        engine=engine,
        threads=1,
        max_running=3,
        max_waiting=8,
        memory=memory,
        on_progress=lambda _progress: None,
        on_device_lost=lambda _reason: None,
        **options,
    )


async def texts_of(engine, requests):
    async def text(asked):
        async with aclosing(engine.generate(asked)) as events:
            return "".join([e.text async for e in events if isinstance(e, TextDelta)])

    try:
        return await asyncio.gather(*(text(asked) for asked in requests))
    finally:
        await engine.aclose()


@pytest.mark.anyio
async def test_a_part_of_the_memory_is_planned_with_where_others_have_theirs():
    whole, part = build("batched"), build("batched", memory=CacheMemory(share=0.25))
    tokens = [engine.stats().caches.kv_tokens for engine in (whole, part)]
    assert 0.15 < tokens[1] / tokens[0] < 0.35  # others take and free some meanwhile
    for engine in (whole, part):
        await engine.aclose()


@pytest.mark.anyio
async def test_both_engines_give_the_same_answers_and_say_which_they_are():
    requests = [
        request("Hello"),
        request("What is in this image?", "wide"),
        request("And here?", "tall", temperature=0.9, seed=3),
        request("A long story, please", max_tokens=40),
    ]
    batched, sequential = build("batched"), build("sequential")
    assert isinstance(batched, BatchedEngine)
    assert isinstance(sequential, SequentialEngine)
    assert batched.stats().capacity == 3
    assert [engine.models[0].engine for engine in (batched, sequential)] == [
        "batched",
        "sequential",
    ]
    expected = await texts_of(sequential, requests)
    assert await texts_of(batched, requests) == expected
    assert all(expected)


@pytest.mark.anyio
async def test_a_model_that_cannot_share_a_batch_runs_alone_and_says_why(caplog):
    with caplog.at_level(logging.WARNING, logger="worker.engine.build"):
        engine = build("batched", replace(SPEC, attn_implementation="eager"))
    assert isinstance(engine, SequentialEngine)
    card = engine.models[0]
    assert card.engine == "sequential"
    assert "eager" in (card.engine_reason or "")
    assert "eager" in caplog.text
    await engine.aclose()


@pytest.mark.anyio
@pytest.mark.skipif(
    not can_pack(torch.float32), reason="this machine's torch has no oneDNN for x86"
)
async def test_packed_weights_give_the_answers_of_plain_ones(caplog):
    requests = [request("Hello"), request("What is in this image?", "wide")]
    with caplog.at_level(logging.INFO, logger="worker.engine.build"):
        packed, plain = build("batched"), build("batched", packs_weights=False)
    assert caplog.text.count("packed for this CPU") == 1
    assert await texts_of(packed, requests) == await texts_of(plain, requests)
