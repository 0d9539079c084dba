"""Tokens a second of decoding alone: after the prompts were read, over the same steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from worker.checkpoint.prompt import PreparedPrompt
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.protocol import SamplingParams
from worker.engine.slot_model import SlotModel

GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a batch.

    Attributes:
        prompt: tokens of each row's prompt.
        warm: steps before the clock is started: memory has grown by then, and graphs are recorded.
        steps: steps that are timed.
    """

    prompt: int
    warm: int
    steps: int

    @property
    def mean_length(self) -> float:
        """Tokens that a row holds in the timed steps, on average."""
        return self.prompt + self.warm + self.steps / 2


def prompts(batch: int, load: Load, words: int) -> list[list[int]]:
    """Rows of random tokens, no two of which begin the same."""
    random = torch.Generator().manual_seed(batch)
    # The last word is the image's.
    return torch.randint(3, words - 1, (batch, load.prompt), generator=random).tolist()


def ours(model: SlotModel, batch: int, load: Load, words: int) -> float:
    """Tokens a second of the batched engine's steps, sampling included."""
    served = model.serving("bench")
    rows = []
    try:
        for ids in prompts(batch, load, words):
            row = model.open(EnginePrompt(PreparedPrompt("", tuple(ids), 0, {}), served), GREEDY)
            rows.append(row)
            while model.prefill(row, 4_096) is None:
                pass
        for _ in range(load.warm):
            model.step(rows)
        before = time.perf_counter()
        for _ in range(load.steps):
            model.step(rows)  # it ends when its tokens are known
        return batch * load.steps / (time.perf_counter() - before)
    finally:
        for row in rows:
            model.close(row)
        model.release_caches()


class _Clock(StoppingCriteria):  # type: ignore[misc] # transformers is untyped
    """Looks at the clock after each step, and never stops."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.ticks: list[float] = []
        self._synchronise = synchronise

    def __call__(self, input_ids: torch.Tensor, _scores: object, **_kwargs: object) -> torch.Tensor:
        self._synchronise()
        self.ticks.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def theirs(
    model: Any,  # noqa: ANN401 - transformers is untyped
    batch: int,
    load: Load,
    words: int,
    device: torch.device,
) -> float:
    """Tokens a second of the steps of transformers' ``generate``."""
    ids = torch.tensor(prompts(batch, load, words), device=device)
    clock = _Clock(torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=1 + load.warm + load.steps,
        stopping_criteria=StoppingCriteriaList([clock]),
        pad_token_id=0,
    )
    seconds = clock.ticks[-1] - clock.ticks[load.warm]
    return batch * load.steps / seconds


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy within the device reads and writes; the best of several."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        rounds = 10
        _wait(device)
        before = time.perf_counter()
        for _ in range(rounds):
            target.copy_(source)
        _wait(device)
        best = max(best, 2 * size * rounds / (time.perf_counter() - before))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
