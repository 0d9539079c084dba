"""What was read before, as a tree: prompts that begin alike share their beginning. No torch.

A radix tree over token keys, as in SGLang's RadixAttention (arXiv:2312.07104), with pieces of any
length instead of pages: a piece of a prompt is copied once, in one go.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

_SECRET = secrets.token_bytes(16)

Keys = NDArray[np.int64]  # one a token; equal keys in equal places mean equal keys and values


class Piece(Protocol):
    """What is kept of some tokens in a row."""

    def split(self, at: int) -> tuple[Self, Self]:
        """The first ``at`` tokens, and the others; neither holds the other's memory."""
        ...


PieceT = TypeVar("PieceT", bound=Piece)


@dataclass(slots=True, eq=False)
class _Node(Generic[PieceT]):
    keys: Keys
    piece: PieceT
    parent: _Node[PieceT] | _Root[PieceT]
    used: int  # the tree's count of uses, when this was last used
    children: dict[int, _Node[PieceT]] = field(default_factory=dict)  # by their first key


@dataclass(slots=True, eq=False)
class _Root(Generic[PieceT]):
    name: Hashable
    children: dict[int, _Node[PieceT]] = field(default_factory=dict)


class PrefixTree(Generic[PieceT]):
    """Pieces by the tokens before and in them. Each root is a world of its own."""

    def __init__(self) -> None:
        self.tokens = 0  # in all pieces
        self._roots: dict[Hashable, _Root[PieceT]] = {}
        self._uses = 0

    def match(self, root: Hashable, keys: Keys) -> list[tuple[PieceT, int]]:
        """The longest known beginning of ``keys``: its pieces, and how much of each it takes."""
        found: list[tuple[PieceT, int]] = []
        for node, taken in self._walk(root, keys):
            self._use(node)
            found.append((node.piece, taken))
        return found

    def insert(self, root: Hashable, keys: Keys, make: Callable[[int], PieceT]) -> int:
        """Keeps what is not known yet of ``keys``.

        Args:
            root: whose tokens they are.
            keys: from the very first token on.
            make: the piece of the tokens from a position to the end.

        Returns:
            The tokens that were added.
        """
        known, place = 0, self._roots.setdefault(root, _Root(root))
        at: _Node[PieceT] | _Root[PieceT] = place
        for node, taken in tuple(self._walk(root, keys)):
            self._use(node)
            known += taken
            at = self._split(node, taken) if taken < len(node.keys) else node
        added = len(keys) - known
        if added:
            piece = make(known)
            node = _Node(keys[known:].copy(), piece, at, 0)
            self._use(node)
            at.children[int(keys[known])] = node
            self.tokens += added
        elif not place.children:
            del self._roots[root]
        return added

    def evict(self, tokens: int) -> int:
        """Forgets the least recently used ends of what is known until so many tokens are gone.

        Returns:
            The tokens that are gone: fewer only if nothing is left.
        """
        freed = 0
        while freed < tokens and self._roots:
            leaf = min(self._leaves(), key=lambda node: node.used)
            freed += len(leaf.keys)
            self._drop(leaf)
        return freed

    def forget(self, root: Hashable) -> None:
        """Drops a world."""
        place = self._roots.pop(root, None)
        if place is not None:
            self.tokens -= sum(len(node.keys) for node in self._nodes(place.children))

    def clear(self) -> None:
        """Forgets everything."""
        self._roots.clear()
        self.tokens = 0

    def _walk(self, root: Hashable, keys: Keys) -> Iterator[tuple[_Node[PieceT], int]]:
        children = self._roots[root].children if root in self._roots else {}
        start = 0
        while start < len(keys):
            node = children.get(int(keys[start]))
            if node is None:
                return
            taken = _common(node.keys, keys[start:])
            yield node, taken
            if taken < len(node.keys):
                return
            start += taken
            children = node.children

    def _split(self, node: _Node[PieceT], at: int) -> _Node[PieceT]:
        """Cuts a node in two; the first half takes its place."""
        first, second = node.piece.split(at)
        head = _Node(node.keys[:at].copy(), first, node.parent, node.used)
        node.parent.children[int(head.keys[0])] = head
        node.keys, node.piece, node.parent = node.keys[at:].copy(), second, head
        head.children[int(node.keys[0])] = node
        return head

    def _use(self, node: _Node[PieceT]) -> None:
        self._uses += 1
        node.used = self._uses

    def _drop(self, leaf: _Node[PieceT]) -> None:
        self.tokens -= len(leaf.keys)
        parent = leaf.parent
        del parent.children[int(leaf.keys[0])]
        if isinstance(parent, _Root) and not parent.children:
            del self._roots[parent.name]

    def _leaves(self) -> Iterator[_Node[PieceT]]:
        for root in self._roots.values():
            yield from (node for node in self._nodes(root.children) if not node.children)

    @staticmethod
    def _nodes(children: dict[int, _Node[PieceT]]) -> Iterator[_Node[PieceT]]:
        waiting = list(children.values())
        while waiting:
            node = waiting.pop()
            waiting.extend(node.children.values())
            yield node


def _common(one: Keys, other: Keys) -> int:
    """How many keys the two begin with in common."""
    size = min(len(one), len(other))
    differs = np.flatnonzero(one[:size] != other[:size])
    return int(differs[0]) if len(differs) else size


def prefix_keys(
    token_ids: Sequence[int],
    placeholder: int | None,
    images: Sequence[bytes],
    counts: Sequence[int] = (),
) -> tuple[Keys, tuple[slice, ...] | None]:
    """The keys of a prompt, in which an image counts by its content.

    Args:
        token_ids: of the prompt; an image is one or more runs of ``placeholder``.
        placeholder: the id that stands for images; None for text alone.
        images: a digest of each image's content, in order.
        counts: tokens of each image; without them, each image has to be one run of its own.

    Returns:
        ``(tokens,)`` keys, and where each image lies, from its first token to its last; None where
        that cannot be told apart. Then the keys of all images depend on all of them.
    """
    keys = np.asarray(token_ids, dtype=np.int64)
    if placeholder is None or not images:
        return keys, ()
    places = np.flatnonzero(keys == placeholder)
    if sum(counts) == len(places) and len(counts) == len(images):
        ends = np.cumsum(counts)[:-1]
    else:
        ends = np.flatnonzero(np.diff(places) > 1) + 1
    runs = np.split(places, ends)
    if len(runs) != len(images):
        keys[places] = _image_keys(images, len(places))
        return keys, None
    for run, image in zip(runs, images, strict=True):
        keys[run] = _image_keys([image], len(run))
    return keys, tuple(slice(int(run[0]), int(run[-1]) + 1) for run in runs)


def _image_keys(digests: Sequence[bytes], count: int) -> Keys:
    """Different for different images, and in different places of one; never a token's id."""
    keys: Keys = -1 - (_folded(digests) + np.arange(count, dtype=np.int64)) % 2**62
    return keys


def _folded(digests: Sequence[bytes]) -> int:
    """A number of 62 bits that nobody outside this process can aim at."""
    hashed = hashlib.blake2b(b"".join(digests), digest_size=8, key=_SECRET)
    return int.from_bytes(hashed.digest(), "little") % 2**62
