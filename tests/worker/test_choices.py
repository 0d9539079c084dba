"""Streams that are merged end together, whatever one of them does."""

import asyncio
from contextlib import aclosing

import pytest

from controller.protocol.chat import FinishReason, Metrics, PromptTokensDetails, Usage
from controller.protocol.errors import OutOfMemoryError, QueueFullError
from worker.engine.protocol import Accepted, Finished, TextDelta
from worker.routes.choices import Choices, overall_metrics, total_usage

pytestmark = pytest.mark.anyio


def finished(prompt=3, completion=2, **metrics):
    details = PromptTokensDetails(image_tokens=1)
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
    )
    return Finished(FinishReason.STOP, usage, Metrics(**{"queue_time_ms": 1.0, **metrics}))


class Streams:
    """Streams that say what they are told to; ``open`` counts those that have not been closed."""

    def __init__(self, *scripts):
        self.open = 0
        self.all = [self.stream(script) for script in scripts]

    async def stream(self, script):
        self.open += 1
        try:
            for each in script:
                await asyncio.sleep(0)
                if isinstance(each, Exception):
                    raise each
                if each is None:
                    await asyncio.Event().wait()
                yield each
        finally:
            self.open -= 1


BEGIN = Accepted(3, 1)


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_each_choice_has_its_own_text_and_end(count):
    end = finished()
    streams = Streams(
        *([BEGIN, *(TextDelta(f"{row}{i}") for i in range(row + 1)), end] for row in range(count))
    )
    choices, seen = Choices(streams.all), {row: [] for row in range(count)}
    await choices.begin()
    async with aclosing(choices.events()) as events:
        async for index, event in events:
            seen[index].append(event)
    for row in range(count):
        assert seen[row] == [*(TextDelta(f"{row}{i}") for i in range(row + 1)), end]
    assert streams.open == 0


@pytest.mark.parametrize("count", [0, 1, 4])
async def test_where_one_is_not_accepted_none_goes_on(count):
    others = [[BEGIN, None]] * count
    streams = Streams(*others, [QueueFullError("full")], *others)
    with pytest.raises(QueueFullError):
        await Choices(streams.all).begin()
    assert streams.open == 0


async def test_an_error_of_one_ends_all():
    streams = Streams([BEGIN, None], [BEGIN, TextDelta("x"), OutOfMemoryError("too little")])
    choices = Choices(streams.all)
    await choices.begin()

    async def read():
        async with aclosing(choices.events()) as events:
            return [event async for event in events]

    with pytest.raises(OutOfMemoryError):
        await read()
    assert streams.open == 0


async def test_whoever_stops_listening_ends_all():
    streams = Streams([BEGIN, TextDelta("x"), None], [BEGIN, None])
    choices = Choices(streams.all)
    await choices.begin()
    async with aclosing(choices.events()) as events:
        assert await anext(events) == (0, TextDelta("x"))
    assert streams.open == 0


async def test_streams_that_were_begun_and_never_asked_can_be_closed():
    streams = Streams([BEGIN, None], [BEGIN, None])
    choices = Choices(streams.all)
    await choices.begin()
    assert streams.open == 2
    await choices.aclose()
    assert streams.open == 0


def test_a_prompt_is_used_once_however_many_answers_it_has():
    usage = total_usage(
        [finished(3, 1), finished(3, 2), finished(5, 4), finished(5, 8)], per_prompt=2
    )
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (8, 15, 23)
    assert usage.prompt_tokens_details.image_tokens == 2


def test_figures_of_several_answers_are_those_of_all_together():
    one = finished(time_to_first_token_ms=5.0, generation_time_ms=9.0, tokens_per_second=2.1)
    two = finished(time_to_first_token_ms=4.0, generation_time_ms=7.0, tokens_per_second=3.2)
    together = overall_metrics([one, two])
    assert together.time_to_first_token_ms == 4.0
    assert together.generation_time_ms == 9.0
    assert together.tokens_per_second == 5.3
    assert together.queue_time_ms == 1.0
    assert together.mean_itl_ms is None
    assert overall_metrics([one]) == one.metrics
