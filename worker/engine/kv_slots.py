"""Keys and values of many answers of different lengths, for unmodified transformers models.

transformers' own caches have one length for all rows. Here each row writes at its own place, and
the attention mask says how much of its row it may see.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

# Rows' lengths are rounded up to multiples of this, so that memory is not moved for each token.
LENGTH_STEP = 64


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
        self.positions: torch.Tensor | None = None  # (rows,): where the new tokens go
        self.span = 0  # how much of the rows is attended to

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Rows are stored before they are stepped, so there is nothing to begin with."""
        raise NotImplementedError("rows come from KVSlots.store")

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: object,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes ``(rows, heads, 1, head_dim)`` and returns views of all that the rows hold."""
        if self.keys is None or self.values is None or self.positions is None:
            raise RuntimeError("a step begins with KVSlots.begin_step")
        rows = torch.arange(key_states.shape[0], device=self.keys.device)
        self.keys[rows, :, self.positions] = key_states[:, :, 0]
        self.values[rows, :, self.positions] = value_states[:, :, 0]
        return (
            self.keys[: len(rows), :, : self.span],
            self.values[: len(rows), :, : self.span],
        )

    def store(self, slot: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Copies a prompt's ``(1, heads, tokens, head_dim)`` into a slot that has room."""
        if self.keys is None or self.values is None:
            raise RuntimeError("a slot is reserved before it is stored to")
        tokens = keys.shape[2]
        self.keys[slot, :, :tokens] = keys[0]
        self.values[slot, :, :tokens] = values[0]

    def reserve(self, like: torch.Tensor, slots: int, length: int) -> None:
        """Makes room, and keeps what is there."""
        self.keys = _grown(self.keys, like, slots, length)
        self.values = _grown(self.values, like, slots, length)

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies one slot's tokens over another's."""
        for tensor in (self.keys, self.values):
            if tensor is not None:
                tensor[target, :, :tokens] = tensor[source, :, :tokens]

    def clear(self) -> None:
        """Frees the memory."""
        self.keys = self.values = self.positions = None

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
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[SlotLayer() for _ in range(num_layers)])
        self._slots = 0  # that there is memory for
        self._length = 0  # tokens that a slot has memory for

    @property
    def reserved_tokens(self) -> int:
        """Tokens that there is memory for, all slots together."""
        return self._slots * self._length

    def store(self, slot: int, prompt: DynamicCache) -> None:
        """Takes a prompt's keys and values over; the prompt's own memory is freed on the way.

        Args:
            slot: the first free one.
            prompt: a cache of one row.
        """
        tokens = prompt.get_seq_length()
        self._reserve(prompt.layers[0].keys, slot + 1, tokens + 1)
        for layer, source in zip(self.layers, prompt.layers, strict=True):
            layer.store(slot, source.keys, source.values)
            source.keys = source.values = None

    def begin_step(self, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        """Says where the new tokens of the first rows go.

        Args:
            lengths: ``(rows,)``, tokens that each row holds so far.
            longest: the largest of them, as a number.

        Returns:
            The mask of the step, ``(rows, 1, 1, span)``: True where a row may look.
        """
        span = _rounded(longest + 1)
        self._reserve(self.layers[0].keys, len(lengths), span)
        for layer in self.layers:
            layer.positions, layer.span = lengths, span
        seen: torch.Tensor = torch.arange(span, device=lengths.device) <= lengths[:, None]
        return seen[:, None, None]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies a row to another slot."""
        for layer in self.layers:
            layer.move(source, target, tokens)

    def clear(self) -> None:
        """Frees all memory; no row may be left."""
        for layer in self.layers:
            layer.clear()
        self._slots = self._length = 0

    def _reserve(self, like: torch.Tensor, slots: int, length: int) -> None:
        if slots <= self._slots and length <= self._length:
            return
        # Half as much again, so that growing costs little in all.
        if slots > self._slots:
            slots = max(slots, self._slots + self._slots // 2)
        if length > self._length:
            length = _rounded(max(length, self._length + self._length // 2))
        slots, length = max(slots, self._slots), max(length, self._length)
        for layer in self.layers:  # one after another, so that only one is there twice
            layer.reserve(like, slots, length)
        self._slots, self._length = slots, length


def _rounded(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _grown(old: torch.Tensor | None, like: torch.Tensor, slots: int, length: int) -> torch.Tensor:
    # Zeros, as what is masked still takes part in a product, and memory may hold NaN.
    new = like.new_zeros(slots, like.shape[1], length, like.shape[3])
    if old is not None:
        new[: old.shape[0], :, : old.shape[2]] = old
    return new
