"""From scores to tokens: temperature, top-k, top-p, min-p and the draw, for many rows at once.

What comes of a row depends on nothing but that row. A cut keeps every token that is as likely as
the least likely one it has to keep: which of two equal ones came first decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.engine.sampler import Sampler
from worker.engine.upload import upload

# On a CPU, sorting a vocabulary costs more than a small model's step; these mostly suffice.
CANDIDATES = 256
_OFF = 2.0  # a top_p that keeps all, rounding included


class Draw:
    """The rows of a batch that draw, with their settings.

    Args:
        samplers: of these rows.
        vocab_size: width of the scores.
        device: where the scores are.
    """

    def __init__(self, samplers: Sequence[Sampler], vocab_size: int, device: torch.device) -> None:
        self._samplers = samplers
        self._vocab_size = vocab_size
        # Sums over a vocabulary in single precision are off by more than its least tokens.
        self._dtype = torch.float32 if device.type == "mps" else torch.float64

        def column(values: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
            return upload(values, dtype, device)[:, None]

        self._temperature = column([each.temperature for each in samplers], torch.float32)
        self._min_p = column([each.min_p for each in samplers], torch.float32)
        cut = [row for row, each in enumerate(samplers) if each.is_cut]
        self._cut = upload(cut, torch.long, device) if cut else None
        top_k = [samplers[row].top_k or vocab_size for row in cut]
        self._top_k = column([min(k, vocab_size) for k in top_k], torch.long)
        top_p = [samplers[row].top_p for row in cut]
        self._top_p = column([p if p < 1 else _OFF for p in top_p], self._dtype)

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """What is drawn from: zero where a token is cut off; not normalised.

        Args:
            scores: ``(rows, vocab_size)`` float32; those that may not come are -inf.
        """
        probabilities = (scores / self._temperature).softmax(dim=-1)
        least = self._min_p * probabilities.amax(dim=-1, keepdim=True)
        if self._cut is not None:
            cut = self._least(probabilities[self._cut])
            least[self._cut] = torch.maximum(least[self._cut], cut)
        return probabilities.masked_fill_(probabilities < least, 0)

    def tokens(self, scores: torch.Tensor) -> torch.Tensor:
        """A token id for each row: ``(rows,)``, drawn with the samplers' numbers."""
        sums = self.probabilities(scores).to(self._dtype).cumsum(dim=-1)
        numbers = [each.uniform() for each in self._samplers]
        uniform = upload(numbers, self._dtype, scores.device)[:, None]
        total = sums[:, -1:]
        # Below the total even where rounding says otherwise: there is no token after the last.
        target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
        drawn = torch.searchsorted(sums, target, right=True)[:, 0]
        return drawn.clamp_(max=scores.shape[1] - 1)

    def _least(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The least probability that top-k and top-p keep: ``(rows, 1)``."""
        if probabilities.device.type != "cpu" or self._vocab_size <= CANDIDATES:
            return self._least_of(probabilities.sort(dim=-1, descending=True).values)
        ranked = probabilities.topk(CANDIDATES, dim=-1).values
        least = self._least_of(ranked)
        # Where the cut is not among the candidates, all have to be ranked.
        asks_more = (self._top_k > CANDIDATES) & (self._top_k < self._vocab_size)
        missed = ((least <= ranked[:, -1:]) | asks_more).nonzero()[:, 0]
        if len(missed):
            ranked = probabilities[missed].sort(dim=-1, descending=True).values
            least[missed] = self._least_of(ranked, missed)
        return least

    def _least_of(self, ranked: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """`_least` from probabilities in descending order, of which the first may be enough."""
        top_k, top_p = self._top_k, self._top_p
        if rows is not None:
            top_k, top_p = top_k[rows], top_p[rows]
        last = top_k.clamp(max=ranked.shape[1]) - 1
        is_kept = ranked >= ranked.gather(1, last)
        kept = ranked.to(self._dtype).masked_fill_(~is_kept, 0)
        sums = kept.cumsum(dim=-1)
        # Top-p is a share of what top-k leaves; without top-k, of all.
        share = sums[:, -1:].masked_fill(top_k >= self._vocab_size, 1.0)
        # A token stays while those before it hold less than top_p; so one always stays.
        is_kept &= (sums - kept) < top_p * share
        count = is_kept.sum(dim=-1, keepdim=True).clamp_(min=1)
        return ranked.gather(1, count - 1)
