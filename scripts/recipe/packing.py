"""Packs conversations into sequences: one picture, branches that do not see each other.

A sequence is a shared prefix (system prompt and picture) followed by branches. Each branch is a
conversation of one or more turns that sees the prefix and itself only, its positions counted from
the end of the prefix: what the model learns on it is what it meets when it stands alone.
Branches lie in bins of one size, so that attention is worked out bin by bin (`attention`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from tokenizers import Tokenizer

from recipe.dialogue import Speech, Turn, converse, note, talk
from recipe.pixels import PATCHES
from recipe.prompt import END, IMAGE, SYSTEM, render
from recipe.world import Scene

_PICTURE: Final = -1  # stands in `ids` where a picture's features go
_NO_BRANCH: Final = 0  # the shared prefix
_PADDING: Final = 10_000
_NOTE_WEIGHT: Final = 0.3  # of an answer's


@dataclass
class Sequence:
    """One training sequence under construction; lists run in parallel, a token each."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)  # of predicting this token; 0 if not learned
    pictures: list[int] = field(default_factory=list)  # which scene of the pool, a picture each

    def extend(self, ids: list[int], branch: int, start: int, weight: float = 0.0) -> int:
        """Append tokens from position `start`; gives the position after them."""
        self.ids.extend(ids)
        self.positions.extend(range(start, start + len(ids)))
        self.branches.extend([branch] * len(ids))
        self.weights.extend([weight] * len(ids))
        return start + len(ids)

    def append(self, other: Sequence) -> None:
        """All tokens of another sequence; it has no pictures of its own."""
        self.ids.extend(other.ids)
        self.positions.extend(other.positions)
        self.branches.extend(other.branches)
        self.weights.extend(other.weights)


@dataclass(frozen=True)
class Batch:
    """Sequences padded to one length."""

    ids: torch.Tensor  # (B, S) int64; `_PICTURE` where features go
    positions: torch.Tensor  # (B, S) int64
    # Where a query may look, bool: (B, 1, S, S), or of binned sequences (B, bins, L, prefix + L).
    mask: torch.Tensor
    weights: torch.Tensor  # (B, S) float
    pictures: list[int]  # scene indices in the order in which their features appear
    answers: float  # about how many: the sum of the weights

    @property
    def is_picture(self) -> torch.Tensor:
        """Where features go: bool (B, S)."""
        return self.ids == _PICTURE


@dataclass(frozen=True)
class Diet:
    """What a stage reads."""

    speeches: tuple[tuple[Speech, float], ...]
    bins: int = 4  # a sequence
    bin_size: int = 96  # tokens
    long_share: float = 0.15  # of the batches: one long conversation instead of branches
    odd_share: float = 0.1  # of the batches: the picture late, after the question, or twice
    text_share: float = 0.08  # of the branches: no picture at all
    typos: float = 0.06
    noted_bins: int = 0  # of the bins: notes instead of conversations


class Packer:
    """Makes batches from a pool of scenes."""

    def __init__(self, tokenizer: Tokenizer, scenes: list[Scene], diet: Diet, seed: int) -> None:
        self._tokenizer = tokenizer
        self._scenes = scenes
        self._diet = diet
        self._rng = random.Random(seed)
        self._prefix = [1, *self._encode(f"{SYSTEM} USER: ")]

    def batch(self, count: int, scene_of: Callable[[], int] | None = None) -> Batch:
        """`count` sequences about scenes of the pool, drawn at random unless given."""
        choose = scene_of or (lambda: self._rng.randrange(len(self._scenes)))
        # A batch is of one kind, so that short sequences are not padded to long ones.
        kind = self._rng.random()
        if kind < self._diet.odd_share:
            return collate([self._odd(choose) for _ in range(count)])
        if kind < self._diet.odd_share + self._diet.long_share:
            return collate([self._long(choose) for _ in range(-(-count // 2))])
        sequences = [self._branched(choose) for _ in range(count)]
        return collate(sequences, bins=self._diet.bins, bin_size=self._diet.bin_size)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _speech(self) -> Speech:
        speeches = self._diet.speeches
        return self._rng.choices([s for s, _ in speeches], [share for _, share in speeches])[0]

    def _converse(self, scene: Scene, turns: int) -> list[Turn]:
        return converse(scene, self._rng, turns, self._speech(), typos=self._diet.typos)

    def _begin(self, index: int) -> tuple[Sequence, int]:
        """A sequence that holds the shared prefix, and the position after it."""
        sequence = Sequence(pictures=[index])
        start = sequence.extend(self._prefix, _NO_BRANCH, 0)
        return sequence, sequence.extend([_PICTURE] * PATCHES, _NO_BRANCH, start)

    def _branched(self, choose: Callable[[], int]) -> Sequence:
        """Many short conversations over one picture, in bins."""
        index = choose()
        sequence, start = self._begin(index)
        branch = 0
        for number in range(1, self._diet.bins + 1):
            end = len(self._prefix) + PATCHES + number * self._diet.bin_size
            if number <= self._diet.noted_bins:
                branch += 1
                self._note(sequence, branch, start, self._scenes[index], end)
            misses = 0 if number > self._diet.noted_bins else 3
            while misses < 3:
                piece = Sequence()
                if self._rng.random() < self._diet.text_share:
                    turns = talk(self._rng, 1, self._speech(), typos=self._diet.typos)
                    self._alone(piece, branch + 1, turns)
                else:
                    turns = self._converse(self._scenes[index], self._rng.choice((1, 1, 1, 2, 3)))
                    self._branch(piece, branch + 1, start, turns)
                if len(sequence.ids) + len(piece.ids) > end:
                    misses += 1
                    continue
                branch += 1
                sequence.append(piece)
            sequence.extend([0] * (end - len(sequence.ids)), _PADDING, 0)
        return sequence

    def _long(self, choose: Callable[[], int]) -> Sequence:
        """One long conversation."""
        index = choose()
        sequence, start = self._begin(index)
        turns = self._converse(self._scenes[index], self._rng.randint(8, 14))
        self._branch(sequence, 1, start, turns)
        return sequence

    def _branch(self, sequence: Sequence, branch: int, start: int, turns: list[Turn]) -> None:
        """A conversation over the shared picture."""
        for index, turn in enumerate(turns):
            lead = "\n" if index == 0 else "USER: "
            asked = self._encode(f"{lead}{turn.question} ASSISTANT:")
            start = sequence.extend(asked, branch, start)
            start = self._answer(sequence, branch, start, turn)

    def _note(self, sequence: Sequence, branch: int, start: int, scene: Scene, end: int) -> None:
        """Notes on the picture up to token `end`: words for things, each with how many there are.

        A question is understood once its words for things are found in the picture. Here what is
        found is told right behind the words, where it is easiest learnt.
        """
        start = sequence.extend(self._encode("\n"), branch, start)
        in_chinese, known = self._speech().answers_in_chinese, set[str]()
        while True:
            words, found = note(scene, self._rng, in_chinese, known)
            asked, told = self._encode(words), self._encode(found)
            if len(sequence.ids) + len(asked) + len(told) > end:
                return
            start = sequence.extend(asked, branch, start)
            start = sequence.extend(told[:1], branch, start, _NOTE_WEIGHT)
            start = sequence.extend(told[1:], branch, start, _NOTE_WEIGHT / 3)

    def _answer(self, sequence: Sequence, branch: int, start: int, turn: Turn) -> int:
        told = self._encode(f" {turn.answer}{END}")
        # Every answer counts the same, however long it is.
        return sequence.extend(told, branch, start, 1 / len(told))

    def _alone(self, sequence: Sequence, branch: int, turns: list[Turn]) -> None:
        """A conversation without a picture: it has its own beginning and sees no prefix."""
        start = sequence.extend([1, *self._encode(f"{SYSTEM} ")], -branch, 0)
        for turn in turns:
            asked = self._encode(f"USER: {turn.question} ASSISTANT:")
            start = sequence.extend(asked, -branch, start)
            start = self._answer(sequence, -branch, start, turn)

    def _odd(self, choose: Callable[[], int]) -> Sequence:
        """One conversation with the picture after the question, later, or a second one."""
        sequence = Sequence()
        start = sequence.extend([1, *self._encode(f"{SYSTEM} ")], 1, 0)
        opening = self._rng.random() < 0.4
        turns = talk(self._rng, self._rng.randint(1, 2), self._speech()) if opening else []
        start = self._say(sequence, start, turns, None)
        for _ in range(self._rng.choice((1, 2, 2))):
            index = choose()
            sequence.pictures.append(index)
            turns = self._converse(self._scenes[index], self._rng.randint(1, 5))
            picture_first = self._rng.random() < 0.5
            start = self._say(sequence, start, turns, picture_first)
        return sequence

    def _say(
        self, sequence: Sequence, start: int, turns: list[Turn], picture_first: bool | None
    ) -> int:
        for index, turn in enumerate(turns):
            picture_in = 0 if index == 0 and picture_first is not None else None
            text = render([turn], picture_in=picture_in, picture_first=bool(picture_first))
            pieces = text.removeprefix(f"{SYSTEM} ").split(IMAGE)
            for number, piece in enumerate(pieces):
                if number:
                    start = sequence.extend([_PICTURE] * PATCHES, 1, start)
                start = sequence.extend(self._encode(piece), 1, start)
            start = self._answer(sequence, 1, start, turn)
        return start


def collate(sequences: list[Sequence], *, bins: int = 0, bin_size: int = 0) -> Batch:
    """Pad to one length and write out who may look at whom; binned sequences have one length."""
    length = max(len(sequence.ids) for sequence in sequences)
    rows = len(sequences)
    ids = torch.zeros(rows, length, dtype=torch.long)
    positions = torch.zeros(rows, length, dtype=torch.long)
    branches = torch.full((rows, length), _PADDING)
    weights = torch.zeros(rows, length)
    for row, sequence in enumerate(sequences):
        size = len(sequence.ids)
        ids[row, :size] = torch.tensor(sequence.ids)
        positions[row, :size] = torch.tensor(sequence.positions)
        branches[row, :size] = torch.tensor(sequence.branches)
        weights[row, :size] = torch.tensor(sequence.weights)
    if bins:
        prefix = length - bins * bin_size
        inside = branches[:, prefix:].view(rows, bins, bin_size)
        sees_prefix = ((inside > _NO_BRANCH) & (inside != _PADDING))[..., None].expand(
            -1, -1, -1, prefix
        )
        causal = torch.ones(bin_size, bin_size, dtype=torch.bool).tril()
        mask = torch.cat(
            [sees_prefix, (inside[..., :, None] == inside[..., None, :]) & causal], dim=-1
        )
    else:
        query, key = branches[:, :, None], branches[:, None, :]
        # Branches above zero see the prefix; those below zero (no picture) see themselves only.
        may_look = (query == key) | ((key == _NO_BRANCH) & (query > _NO_BRANCH))
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = (may_look & causal)[:, None]
    answers = float(weights.sum())
    pictures = [index for sequence in sequences for index in sequence.pictures]
    return Batch(ids, positions, mask, weights, pictures, answers)
