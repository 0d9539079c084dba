"""Keys and values of what was read before, for prompts that begin the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from worker.engine.prefix_tree import Keys, PrefixTree

# Fewer tokens than this are read again sooner than they are looked up and copied.
LEAST_TOKENS = 16
# A piece may keep one part in so many of memory that it has no use for.
_WASTE = 8


@dataclass(frozen=True, slots=True)
class KVPiece:
    """Keys and values of some tokens in a row: ``(1, heads, tokens, head_dim)`` for each layer."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]

    def split(self, at: int) -> tuple[KVPiece, KVPiece]:
        """See `Piece.split`."""
        first = KVPiece(
            tuple(tensor[:, :, :at].clone() for tensor in self.keys),
            tuple(tensor[:, :, :at].clone() for tensor in self.values),
        )
        return first, self.after(at)

    def after(self, start: int) -> KVPiece:
        """The tokens from one on.

        They are a copy, so that the whole need not be kept for them; but where they are nearly all
        of it, as after the few tokens that all prompts begin with, copying would cost more.
        """

        def tail(tensor: torch.Tensor) -> torch.Tensor:
            rest = tensor[:, :, start:]
            return rest if start * _WASTE <= tensor.shape[2] else rest.clone()

        return KVPiece(tuple(map(tail, self.keys)), tuple(map(tail, self.values)))


class PrefixCache:
    """Bounded memory of prompts and answers; belongs to the model's thread.

    Args:
        capacity_tokens: tokens that it may hold; 0 keeps nothing, None has no bound of its own.
    """

    def __init__(self, capacity_tokens: int | None) -> None:
        self._capacity = capacity_tokens
        self._tree = PrefixTree[KVPiece]()
        self.queries = 0  # tokens that were looked for
        self.hits = 0  # and found

    @property
    def tokens(self) -> int:
        """Tokens that it holds."""
        return self._tree.tokens

    def start(self, root: Hashable, keys: Keys) -> tuple[DynamicCache, int]:
        """A cache that begins with what is known of a prompt.

        Args:
            root: whose keys and values they are: adapter and projector.
            keys: of the prompt's tokens; the last one is always left to be read.

        Returns:
            The cache, whose memory is its own, and the tokens that it holds.
        """
        cache = DynamicCache()
        if self._capacity == 0:
            return cache, 0
        self.queries += len(keys)
        pieces = self._tree.match(root, keys[:-1])
        known = sum(taken for _, taken in pieces)
        if known < LEAST_TOKENS:
            return cache, 0
        self.hits += known
        num_layers = len(pieces[0][0].keys)
        for layer in range(num_layers):
            # `update` concatenates: it never writes into what it is given.
            cache.update(
                torch.cat([piece.keys[layer][:, :, :taken] for piece, taken in pieces], dim=2),
                torch.cat([piece.values[layer][:, :, :taken] for piece, taken in pieces], dim=2),
                layer,
            )
        return cache, known

    def keep(self, root: Hashable, keys: Keys, cut: Callable[[int], KVPiece]) -> None:
        """Remembers a row.

        Args:
            root: as for `start`.
            keys: of all its tokens that were read.
            cut: the row's piece from a token on to the last of ``keys``; which nobody writes to.
        """
        if self._capacity == 0 or not len(keys):
            return
        if self._capacity is not None and len(keys) > self._capacity:
            return
        self._tree.insert(root, keys, cut)
        if self._capacity is not None:
            self.shrink_to(self._capacity)

    def shrink_to(self, tokens: int) -> int:
        """Forgets what was not used for the longest; the tokens that this freed."""
        return self._tree.evict(self._tree.tokens - max(0, tokens))

    def forget(self, root: Hashable) -> None:
        """Drops what belongs to an adapter or a projector that is gone."""
        self._tree.forget(root)
