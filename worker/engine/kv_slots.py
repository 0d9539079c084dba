"""Keys and values of many answers of different lengths, for unmodified transformers models.

transformers' own caches have one length for all rows. Here each row writes at its own place, and
the attention mask says how much of its row it may see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

from worker.engine.batch import KVFullError
from worker.engine.lazy_zeros import zeros
from worker.engine.prefix_cache import KVPiece

# Rows' lengths are rounded up to multiples of this, so that memory is not moved for each token.
LENGTH_STEP = 64
# What is set aside at first where it costs nothing until it is written to: growing would copy all
# rows while they wait. It may be no more than one part in so many of all that there is.
_ROOMY_SLOTS, _ROOMY_LENGTH = 16, 1024
_ROOMY_SHARE = 4


class SlotLayer(CacheLayerMixin):  # type: ignore[misc] # transformers is untyped
    """One layer: ``keys`` and ``values`` of shape ``(slots, heads, length, head_dim)``.

    A forward pass takes the first rows, one new token each; `KVSlots.begin_step` says where they
    go. The length that transformers asks for is 0: masks and positions are given explicitly.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None  # (rows,): 0, 1, ...
        self.positions: torch.Tensor | None = None  # (rows,): where the new tokens go
        self.span = 0  # how much of the rows is attended to

    def lazy_initialization(
        self,
        key_states: torch.Tensor,  # noqa: ARG002 - transformers'
        value_states: torch.Tensor,  # noqa: ARG002
    ) -> None:
        """Rows are stored before they are stepped, so there is nothing to begin with."""
        raise RuntimeError("rows come from KVSlots.store")

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: object,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes ``(rows, heads, 1, head_dim)`` and returns views of all that the rows hold."""
        if self.keys is None or self.values is None or self.rows is None:
            raise RuntimeError("a step begins with KVSlots.begin_step")
        self.keys[self.rows, :, self.positions] = key_states[:, :, 0]
        self.values[self.rows, :, self.positions] = value_states[:, :, 0]
        count = len(self.rows)
        return self.keys[:count, :, : self.span], self.values[:count, :, : self.span]

    def store(self, slot: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copies a prompt's ``(1, heads, tokens, head_dim)`` into a slot that has room."""
        if self.keys is None or self.values is None:
            raise RuntimeError("a slot is reserved before it is stored to")
        tokens = keys.shape[2]
        self.keys[slot, :, :tokens] = keys[0]
        self.values[slot, :, :tokens] = values[0]

    def resize(
        self,
        like: tuple[torch.Tensor, torch.Tensor] | None,
        size: tuple[int, int],
        used: tuple[int, int],
    ) -> None:
        """Makes room, or gives it back, and keeps what is used.

        Args:
            like: keys and values of the layer, where it has none yet.
            size: rows that there is to be memory for, and tokens of each.
            used: rows that hold something, and the tokens of the longest.
        """
        keys, values = (self.keys, self.values) if like is None else like
        if keys is None or values is None:
            raise RuntimeError("a layer without memory needs a pattern for it")
        self.keys = _resized(self.keys, keys, size, used)
        self.values = _resized(self.values, values, size, used)

    def piece(self, slot: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of some of a slot's tokens, each ``(1, heads, tokens, head_dim)``."""
        if self.keys is None or self.values is None:
            raise RuntimeError("a slot is stored before it is read")
        return (
            self.keys[slot : slot + 1, :, start:stop].clone(),
            self.values[slot : slot + 1, :, start:stop].clone(),
        )

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies one slot's tokens over another's."""
        for tensor in (self.keys, self.values):
            if tensor is not None:
                tensor[target, :, :tokens] = tensor[source, :, :tokens]

    def clear(self) -> None:
        """Frees the memory."""
        self.keys = self.values = self.rows = self.positions = None

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002 - transformers'
        """What the mask that is given covers."""
        return self.span, 0

    def get_seq_length(self) -> int:
        """0: no length is common to all rows."""
        return 0

    def get_max_length(self) -> int:
        """It grows without an end of its own."""
        return -1


class KVSlots(Cache):  # type: ignore[misc] # transformers is untyped
    """The rows of a batch in slots 0, 1, ...; memory grows with what they hold.

    Args:
        num_layers: of the language model.
        window: tokens that layers with a sliding window look back, themselves included.
        admit: whether there may be memory for so many tokens; asked before it is taken, and told
            whether it is worth giving up other memory for.
    """

    def __init__(
        self, num_layers: int, *, window: int | None = None, admit: Callable[[int, bool], bool]
    ) -> None:
        super().__init__(layers=[SlotLayer() for _ in range(num_layers)])
        self._window = window
        self._admit = admit
        self._slots = 0  # that there is memory for
        self._length = 0  # tokens that a slot has memory for
        self._is_lazy = False  # whether memory is taken when it is written to

    @property
    def reserved_tokens(self) -> int:
        """Tokens that there is memory for, all slots together."""
        return self._slots * self._length

    def store(self, slot: int, prompt: DynamicCache, longest: int) -> None:
        """Takes over a prompt's keys and values, which stay the prompt's too.

        Args:
            slot: the first free one.
            prompt: a cache of one row.
            longest: tokens of the longest row in the slots before.

        Raises:
            KVFullError: there is no memory for it; nothing has changed.
        """
        tokens = prompt.get_seq_length()
        like = None
        if not self._slots:
            like = [(layer.keys, layer.values) for layer in prompt.layers]
        self._reserve(slot + 1, max(tokens, longest) + 1, (slot, longest), like)
        for layer, source in zip(self.layers, prompt.layers, strict=True):
            layer.store(slot, source.keys, source.values)

    def begin_step(
        self, lengths: torch.Tensor, longest: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Says where the new tokens of the first rows go.

        Args:
            lengths: ``(rows,)``, tokens that each row holds so far.
            longest: the largest of them, as a number.

        Returns:
            The masks of the step, ``(rows, 1, 1, span)``, True where a row may look: of layers
            that look at everything, and of those with a window, where the model has one.

        Raises:
            KVFullError: there is no memory for another token of each; nothing has changed.
        """
        self._reserve(len(lengths), longest + 1, (len(lengths), longest))
        span = rounded(longest + 1)
        rows = torch.arange(len(lengths), device=lengths.device)
        for layer in self.layers:
            layer.rows, layer.positions, layer.span = rows, lengths, span
        places = torch.arange(span, device=lengths.device)
        seen: torch.Tensor = places <= lengths[:, None]
        if self._window is None:
            return seen[:, None, None], None
        near = seen & (places > lengths[:, None] - self._window)
        return seen[:, None, None], near[:, None, None]

    def piece(self, slot: int, start: int, stop: int) -> KVPiece:
        """A copy of some of a row's tokens."""
        pairs = [layer.piece(slot, start, stop) for layer in self.layers]
        return KVPiece(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs))

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies a row to another slot."""
        for layer in self.layers:
            layer.move(source, target, tokens)

    def clear(self) -> None:
        """Frees all memory; no row may be left."""
        for layer in self.layers:
            layer.clear()
        self._slots = self._length = 0

    def _reserve(
        self,
        slots: int,
        length: int,
        used: tuple[int, int],
        like: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> None:
        """Memory for the first ``slots`` rows, of ``length`` tokens; see `SlotLayer.resize`."""
        if slots <= self._slots and length <= self._length:
            return
        if like is not None:
            self._is_lazy = like[0][0].device.type == "cpu"
        # Half as much again, so that growing costs little in all; where that does not fit, what is
        # needed, and no more of what rows have left behind.
        size = (_ample(slots, self._slots), rounded(_ample(length, self._length)))
        roomy = (max(size[0], _ROOMY_SLOTS), max(size[1], _ROOMY_LENGTH))
        if self._is_lazy and self._admit(_ROOMY_SHARE * roomy[0] * roomy[1], False):
            size = roomy
        elif not self._admit(size[0] * size[1], False):
            size = (slots, rounded(length))
            if not self._admit(size[0] * size[1], True):
                raise KVFullError(f"{size[0]} rows of {size[1]} tokens")
        for index, layer in enumerate(self.layers):
            # One after another, so that only one is there twice.
            layer.resize(None if like is None else like[index], size, used)
        self._slots, self._length = size


def rounded(length: int) -> int:
    """A length as memory is taken for it."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _ample(needed: int, there: int) -> int:
    return there if needed <= there else max(needed, there + there // 2)


def _resized(
    old: torch.Tensor | None, like: torch.Tensor, size: tuple[int, int], used: tuple[int, int]
) -> torch.Tensor:
    # Zeros, as what is masked still takes part in a product, and memory may hold NaN.
    new = zeros((size[0], like.shape[1], size[1], like.shape[3]), like)
    if old is not None:
        rows, tokens = used
        new[:rows, :, :tokens] = old[:rows, :, :tokens]
    return new
