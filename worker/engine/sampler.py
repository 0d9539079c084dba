"""How one answer's tokens are chosen: its settings, its random numbers, what it has said so far."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Set
from dataclasses import dataclass
from hashlib import blake2b

import torch

from worker.engine.protocol import SamplingParams
from worker.engine.vocabulary import Constraint

# LLaVA's clients mean greedy by 0.001 and less.
GREEDY_BELOW = 1e-3


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What the checkpoint's generation config says, for what a request leaves open."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class Sampler:
    """One answer, as `SamplingBatch` sees it.

    The random number of each token is a function of seed, choice and place alone, so that no other
    request and no failed step can change it, on whatever device the model runs.

    Args:
        asked: what the request says.
        defaults: what it leaves open.
        prompt_ids: of the prompt, for the repetition penalty.
        end_token_ids: tokens that end an answer of this checkpoint.
        constraint: what its text is held to.
    """

    def __init__(
        self,
        asked: SamplingParams,
        defaults: SamplingDefaults,
        prompt_ids: Iterable[int] = (),
        *,
        end_token_ids: Set[int] = frozenset(),
        constraint: Constraint | None = None,
    ) -> None:
        self.temperature = defaults.temperature if asked.temperature is None else asked.temperature
        self.top_p = defaults.top_p if asked.top_p is None else asked.top_p
        self.top_k = max(0, defaults.top_k if asked.top_k is None else asked.top_k)
        self.min_p = defaults.min_p if asked.min_p is None else asked.min_p
        self.repetition_penalty = (
            defaults.repetition_penalty
            if asked.repetition_penalty is None
            else asked.repetition_penalty
        )
        self.presence_penalty = asked.presence_penalty
        self.frequency_penalty = asked.frequency_penalty
        self.logit_bias = asked.logit_bias
        self.logprobs = asked.logprobs
        self.constraint = constraint
        self.prompt_ids = prompt_ids
        self.place = 0  # tokens that were chosen
        # (2, vocab_size) int32: how often each token was in the prompt, and in the answer since.
        self.history: torch.Tensor | None = None
        self._min_tokens = asked.min_tokens
        self._ends = sorted(end_token_ids | asked.stop_token_ids)
        self._seed = secrets.randbits(64) if asked.seed is None else asked.seed
        self._choice = asked.choice

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature <= GREEDY_BELOW

    @property
    def is_cut(self) -> bool:
        """Whether it draws from the likeliest tokens alone, for which they have to be ranked."""
        return not self.is_greedy and (self.top_k > 0 or self.top_p < 1)

    @property
    def has_penalties(self) -> bool:
        """Whether it matters which tokens were there before."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    @property
    def barred_ids(self) -> list[int]:
        """Tokens that may not come next: ends, until the answer is long enough or complete."""
        if self.place >= self._min_tokens:
            return []
        return [] if self.constraint is not None and self.constraint.is_complete else self._ends

    @property
    def takes_likeliest(self) -> bool:
        """Whether it takes the largest of the logits as they come, and nobody asks how likely."""
        return (
            self.is_greedy
            and self.logprobs is None
            and self.constraint is None
            and not self.has_penalties
            and not self.logit_bias
            and self.place >= self._min_tokens
        )

    def uniform(self) -> float:
        """The number from [0, 1) that chooses the next token."""
        key = f"{self._seed}/{self._choice}/{self.place}".encode()
        return (int.from_bytes(blake2b(key, digest_size=8).digest()) >> 11) * 2.0**-53

    def accept(self, token_id: int) -> None:
        """The next token has been chosen."""
        self.place += 1
        if self.constraint is not None:
            self.constraint.accept(token_id)
