"""Makes tokens that were there before less likely, for all rows of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.engine.sampler import Sampler
from worker.engine.upload import upload


class Penalties:
    """The rows of a batch that have penalties, with what each has said.

    Args:
        samplers: of the whole batch; those without penalties are left alone.
        vocab_size: width of the logits.
        device: where the logits are.
    """

    def __init__(self, samplers: Sequence[Sampler], vocab_size: int, device: torch.device) -> None:
        rows = [row for row, sampler in enumerate(samplers) if sampler.has_penalties]
        chosen = [samplers[row] for row in rows]
        self._rows = upload(rows, torch.long, device)

        def column(values: Sequence[float]) -> torch.Tensor:
            return upload(values, torch.float32, device)[:, None]

        self._repetition = column([each.repetition_penalty for each in chosen])
        self._presence = column([each.presence_penalty for each in chosen])
        self._frequency = column([each.frequency_penalty for each in chosen])
        # One tensor for all rows; what a sampler keeps is a view of it, until the next batch.
        self._history = torch.stack([_history(each, vocab_size, device) for each in chosen])
        for each, history in zip(chosen, self._history, strict=True):
            each.history = history

    def apply(self, scores: torch.Tensor) -> None:
        """Changes scores in place.

        Repetition is CTRL's (arXiv:1909.05858, eq. 2) over prompt and answer; presence and
        frequency are OpenAI's, over the answer alone.

        Args:
            scores: ``(rows, vocab_size)`` float32.
        """
        said = self._history[:, 1]
        own = scores[self._rows]
        repeated = torch.where(own < 0, own * self._repetition, own / self._repetition)
        own = torch.where(self._history.any(dim=1), repeated, own)
        own -= self._frequency * said + self._presence * (said > 0)
        scores[self._rows] = own

    def count(self, token_ids: torch.Tensor) -> None:
        """Tokens have come: ``(rows,)``, of the whole batch."""
        ids = token_ids[self._rows][:, None]
        said = self._history[:, 1]
        said.scatter_add_(1, ids, torch.ones_like(ids, dtype=said.dtype))


def _history(sampler: Sampler, vocab_size: int, device: torch.device) -> torch.Tensor:
    if sampler.history is not None:
        return sampler.history
    # An image's placeholder may lie after the vocabulary.
    ids = [token_id for token_id in sampler.prompt_ids if 0 <= token_id < vocab_size]
    history = torch.zeros(2, vocab_size, dtype=torch.int32, device=device)
    history[0].index_fill_(0, upload(ids, torch.long, device), 1)
    return history
