"""Who wins how often: Bradley-Terry ratings of votes, with 95 % intervals. Pure, but for numpy.

A rating is on Elo's scale: 400 points are odds of ten to one; the mean of all models is 1000. A tie
is half a win for both, and so is "both are bad". Each model is also given one tie in all, shared
out among the others: without it a model that never lost would have no finite rating, and two groups
of models that never met no common scale. Intervals are the 2.5th and 97.5th percentile of 500
bootstrap resamples of the votes, from a fixed seed: the same votes give the same table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

_SCALE, _MEAN = 400.0, 1000.0
_RESAMPLES = 500
_SEED = 20_240_611
_TOLERANCE, _LIMIT = 1e-9, 10_000


class Winner(StrEnum):
    """What a person said of a battle."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "bothbad"


@dataclass(frozen=True, slots=True)
class Vote:
    """A battle that was decided."""

    left: str
    right: str
    winner: Winner


@dataclass(frozen=True, slots=True)
class Standing:
    """A line of the table."""

    model: str
    rank: int  # 1 and how many models are certainly better: whose interval lies above this one's
    rating: float
    low: float  # of the 95 % interval
    high: float
    num_votes: int


@dataclass(frozen=True, slots=True)
class Meeting:
    """What became of all battles of two models, as seen from the first."""

    wins: int = 0
    ties: int = 0
    losses: int = 0

    @property
    def num_votes(self) -> int:
        """How often they met."""
        return self.wins + self.ties + self.losses

    @property
    def share(self) -> float | None:
        """Of the wins, a tie being half a one; None if they never met."""
        return (self.wins + self.ties / 2) / self.num_votes if self.num_votes else None


def standings(votes: Sequence[Vote]) -> list[Standing]:
    """The table, best first. Blocks for some tenths of a second with many models."""
    games = Counter(votes)
    models = sorted({name for vote in games for name in (vote.left, vote.right)})
    if len(models) < 2:
        return []
    kinds = list(games)
    counts = np.array([games[vote] for vote in kinds], dtype=np.float64)
    ratings = _rate(models, kinds, counts)
    random = np.random.default_rng(_SEED)
    resampled = random.multinomial(int(counts.sum()), counts / counts.sum(), size=_RESAMPLES)
    samples = np.array([_rate(models, kinds, each.astype(np.float64)) for each in resampled])
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    table = [
        Standing(
            model=model,
            rank=1 + int(np.sum(low > high[number])),
            rating=float(ratings[number]),
            low=float(low[number]),
            high=float(high[number]),
            num_votes=sum(games[vote] for vote in kinds if model in (vote.left, vote.right)),
        )
        for number, model in enumerate(models)
    ]
    return sorted(table, key=lambda each: (-each.rating, each.model))


def meetings(votes: Sequence[Vote]) -> dict[tuple[str, str], Meeting]:
    """The pairwise table: each ordered pair that met."""
    found: dict[tuple[str, str], Meeting] = {}
    for vote, count in Counter(votes).items():
        is_left, is_right = vote.winner is Winner.LEFT, vote.winner is Winner.RIGHT
        is_tie = not (is_left or is_right)
        for pair, has_won, has_lost in (
            ((vote.left, vote.right), is_left, is_right),
            ((vote.right, vote.left), is_right, is_left),
        ):
            before = found.get(pair, Meeting())
            found[pair] = Meeting(
                before.wins + count * has_won,
                before.ties + count * is_tie,
                before.losses + count * has_lost,
            )
    return found


def _rate(
    models: Sequence[str],
    kinds: Sequence[Vote],
    counts: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Ratings of the models, in their order; ``counts`` says how often each kind of vote came."""
    # On use, which is not on an event loop: what it imports takes a second.
    import evalica  # noqa: PLC0415

    winners = {
        Winner.LEFT: evalica.Winner.X,
        Winner.RIGHT: evalica.Winner.Y,
        Winner.TIE: evalica.Winner.Draw,
        Winner.BOTH_BAD: evalica.Winner.Draw,
    }
    pairs = list(combinations(models, 2))
    prior = 1 / (len(models) - 1)
    result = evalica.bradley_terry(
        xs=[vote.left for vote in kinds] + [left for left, _ in pairs],
        ys=[vote.right for vote in kinds] + [right for _, right in pairs],
        winners=[winners[vote.winner] for vote in kinds] + [evalica.Winner.Draw] * len(pairs),
        weights=[*counts.tolist(), *[prior] * len(pairs)],
        tolerance=_TOLERANCE,
        limit=_LIMIT,
    )
    strengths = np.log10(result.scores.reindex(list(models)).to_numpy(dtype=np.float64))
    ratings: np.ndarray[tuple[int], np.dtype[np.float64]] = _MEAN + _SCALE * (
        strengths - strengths.mean()
    )
    return ratings
