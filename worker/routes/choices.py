"""The answers to one request, made at the same time, and what they come to together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from controller.protocol.chat import Metrics, PromptTokensDetails, Usage
from worker.engine.protocol import Accepted, Finished, GenerationEvent, TextDelta

Events = AsyncGenerator[GenerationEvent]
ChoiceEvent = tuple[int, TextDelta | Finished]


class Choices:
    """Several streams of an engine's events as one.

    Args:
        streams: one a choice, not begun.
    """

    def __init__(self, streams: Sequence[Events]) -> None:
        self._streams = streams

    async def begin(self) -> None:
        """Waits until all are accepted; where one is not, none goes on."""
        beginnings = [asyncio.create_task(_next(stream)) for stream in self._streams]
        try:
            await asyncio.gather(*beginnings)
        except BaseException:
            await _cancel(beginnings)
            await self.aclose()
            raise

    async def events(self) -> AsyncGenerator[ChoiceEvent]:
        """What comes, with the index of its choice; an error ends all."""
        if len(self._streams) == 1:  # no task for each token where there is nothing to merge
            async with aclosing(self._streams[0]) as stream:
                async for event in stream:
                    if not isinstance(event, Accepted):
                        yield 0, event
            return
        awaited = {
            asyncio.create_task(_next(stream)): index for index, stream in enumerate(self._streams)
        }
        try:
            while awaited:
                done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    event = task.result()
                    index = awaited.pop(task)
                    if not isinstance(event, Finished):
                        awaited[asyncio.create_task(_next(self._streams[index]))] = index
                    if not isinstance(event, Accepted):
                        yield index, event
        finally:
            await _cancel(awaited)
            await self.aclose()

    async def aclose(self) -> None:
        """Ends what still runs."""
        for stream in self._streams:
            await stream.aclose()


async def _next(stream: Events) -> GenerationEvent:
    return await anext(stream)


async def _cancel(tasks: Iterable[asyncio.Task[GenerationEvent]]) -> None:
    """Cancels tasks and waits for them: a stream cannot be closed while it is asked."""
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)


def total_usage(choices: Sequence[Finished], *, per_prompt: int) -> Usage:
    """What a request used: each prompt once, and all that was answered.

    Args:
        choices: in order; the answers to the first prompt first.
        per_prompt: how many of them one prompt has.
    """
    prompts = [finished.usage for finished in choices[::per_prompt]]
    details = [usage.prompt_tokens_details or PromptTokensDetails() for usage in prompts]
    prompt_tokens = sum(usage.prompt_tokens for usage in prompts)
    completion_tokens = sum(finished.usage.completion_tokens for finished in choices)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=sum(each.cached_tokens for each in details),
            image_tokens=sum(each.image_tokens for each in details),
        ),
    )


def overall_metrics(choices: Sequence[Finished]) -> Metrics:
    """How long the choices took together: the first wait and token of any, the pace of all."""
    metrics = [finished.metrics for finished in choices]
    if len(metrics) == 1:
        return metrics[0]

    def known(name: str) -> list[float]:
        values = (getattr(each, name) for each in metrics)
        return [value for value in values if value is not None]

    gaps = known("mean_itl_ms")
    return metrics[0].model_copy(
        update={
            "queue_time_ms": min(known("queue_time_ms")),
            "time_to_first_token_ms": min(known("time_to_first_token_ms"), default=None),
            "generation_time_ms": max(known("generation_time_ms"), default=None),
            "mean_itl_ms": round(sum(gaps) / len(gaps), 3) if gaps else None,
            "tokens_per_second": round(sum(known("tokens_per_second")), 2) or None,
        }
    )
