"""Chooses the next token of one answer from its logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from worker.engine.protocol import SamplingParams

# LLaVA's clients mean greedy by 0.001 and less.
GREEDY_BELOW = 1e-3


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the checkpoint's generation config says, for what a request leaves open."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class Sampler:
    """Repetition penalty, temperature, top-k, top-p, then a draw from the request's own numbers.

    The draw is made on the CPU, so that a seed gives the same numbers on every device, and no
    other request can change them.
    """

    def __init__(
        self,
        asked: SamplingParams,
        defaults: SamplingDefaults,
        prompt_ids: Iterable[int] = (),
    ) -> None:
        self._temperature = defaults.temperature if asked.temperature is None else asked.temperature
        self._top_p = defaults.top_p if asked.top_p is None else asked.top_p
        self._top_k = defaults.top_k if asked.top_k is None else asked.top_k
        self._penalty = defaults.repetition_penalty
        self._seen = set(prompt_ids)  # what the penalty is for; grows with the answer
        self._random = torch.Generator(device="cpu")
        if asked.seed is None:
            self._random.seed()
        else:
            # Any JSON integer is a valid seed; torch takes 64 bits.
            self._random.manual_seed(asked.seed % 2**63)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self._temperature <= GREEDY_BELOW

    @property
    def takes_likeliest(self) -> bool:
        """Whether it takes the largest of the logits as they come."""
        return self.is_greedy and self._penalty == 1

    def sample(self, logits: torch.Tensor) -> int:
        """A token id.

        Args:
            logits: ``(vocab_size,)``, any float dtype, any device.
        """
        if self._penalty != 1:
            logits = self._penalised(logits)
        token_id = int(logits.argmax()) if self.is_greedy else self._draw(logits)
        self._seen.add(token_id)
        return token_id

    def _draw(self, logits: torch.Tensor) -> int:
        scores = logits.to(device="cpu", dtype=torch.float32) / self._temperature
        if 0 < self._top_k < scores.numel():
            kept, ids = scores.topk(self._top_k)  # sorted, best first
        else:
            kept, ids = scores.sort(descending=True)
        probabilities = kept.softmax(dim=-1)
        if self._top_p < 1:
            # A token stays while those before it hold less than top_p; so one always stays.
            before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = probabilities.masked_fill(before >= self._top_p, 0.0)
        drawn = torch.multinomial(probabilities, 1, generator=self._random)
        return int(ids[drawn])

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """Tokens that were there before become less likely (CTRL, arXiv:1909.05858, eq. 2)."""
        size = logits.numel()
        # An image's placeholder may lie after the vocabulary.
        ids = [token_id for token_id in self._seen if token_id < size]
        seen = torch.tensor(ids, dtype=torch.long, device=logits.device)
        scores = logits[seen]
        scores = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        return logits.scatter(0, seen, scores)


def sample_rows(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[int]:
    """One token for each row, the same as each sampler's own `Sampler.sample`.

    Args:
        samplers: one a row.
        logits: ``(rows, vocab_size)``, any float dtype, any device.
    """
    # All rows at once, so that a device is waited for once.
    likeliest: list[int] = logits.argmax(dim=-1).tolist()
    return [
        token if sampler.takes_likeliest else sampler.sample(row)
        for sampler, token, row in zip(samplers, likeliest, logits, strict=True)
    ]
