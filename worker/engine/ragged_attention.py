"""Attention of a decode step on a CPU in which each row reads its own keys, and no more.

torch's `scaled_dot_product_attention` gives all rows the span of the longest one and a mask, and
multiplies single queries at a fraction of the memory's speed; of a step of many rows this is the
larger part. The same sums are a product that is sampled at given places (queries by keys, as a
sparse matrix of rows of different lengths), a softmax, and a weighted sum of given rows of a table
(an embedding bag): torch has kernels for both that read memory as fast as it comes.

transformers finds it by its name, in the table that is there for this.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from worker.engine.processor import is_x86

_NAME = "paragone_ragged"
# A single row is its own span, and too little work for so many calls.
_LEAST_ROWS = 2
_MOST_PLACES = 2**31 - 1  # that an int32 can name


@dataclass(frozen=True, slots=True)
class _Layout:
    """How queries and the memory of keys lie; the same for most layers of a model."""

    heads: int  # of queries
    kv_heads: int
    length: int  # tokens that a slot has memory for


@dataclass(frozen=True, slots=True)
class _Places:
    """Where each query's keys are, in a table ``(slots * kv_heads * length, head_dim)``.

    Attributes:
        products: sparse, ``(rows * heads, keys)``: a value for each query and key of its own.
        scores: ``(rows * heads, most)``, -inf beyond each query's keys.
        flat: where the values of ``products`` belong in ``scores``.
    """

    products: torch.Tensor
    scores: torch.Tensor
    flat: torch.Tensor


@dataclass(slots=True)
class _Step:
    """The step that runs.

    Attributes:
        lengths: tokens of each row, the new one included.
        window: tokens that a row sees under the mask ``near``.
        full: the mask of layers that see everything.
    """

    lengths: Sequence[int]
    window: int | None
    full: torch.Tensor
    near: torch.Tensor | None
    places: dict[tuple[bool, _Layout], _Places] = field(default_factory=dict)

    def find(self, mask: torch.Tensor | None, layout: _Layout) -> _Places | None:
        """Places for a layer that was given one of the step's masks; None if it is another."""
        is_near = mask is not None and mask is self.near
        if not is_near and mask is not self.full:
            return None
        found = self.places.get((is_near, layout))
        if found is None:
            window = self.window if is_near else None
            found = self.places[is_near, layout] = _places(self.lengths, window, layout)
        return found


_step: ContextVar[_Step | None] = ContextVar("ragged_step", default=None)


class RaggedAttention:
    """Switches the attention of one language model for a step, where it pays.

    Args:
        model: transformers' model, or a PEFT model around it.
        config: of the language model.
        device: of the model; on others than CPUs nothing is ever switched.
        window: tokens that layers with a sliding window look back, themselves included.
        is_recorded: whether steps are recorded, and replayed for rows of other lengths; nothing is
            switched then either.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: Any,  # noqa: ANN401 - transformers is untyped
        device: torch.device,
        window: int | None,
        *,
        is_recorded: bool,
    ) -> None:
        self._window = window
        self._configs: Sequence[Any] = ()
        if device.type == "cpu" and is_x86() and not is_recorded:
            # Modules may have copies of the config, several of them one together.
            owned = [getattr(module, "config", None) for module in model.modules()]
            found = {id(own): own for own in owned if _is_alike(own, config)}
            self._configs = list(found.values())

    @contextmanager
    def step(
        self, lengths: Sequence[int], full: torch.Tensor, near: torch.Tensor | None
    ) -> Iterator[None]:
        """While it lasts, passes of one token for each row read each row's own keys.

        Args:
            lengths: tokens of the rows, the new ones included.
            full: the mask that layers are given which look at everything.
            near: the mask of those with a window.
        """
        if not self._configs or len(lengths) < _LEAST_ROWS:
            yield
            return
        token = _step.set(_Step(lengths, self._window, full, near))
        before = [config._attn_implementation for config in self._configs]  # noqa: SLF001
        try:
            for config in self._configs:
                config._attn_implementation = _NAME  # noqa: SLF001 - it has no public setter
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation = name  # noqa: SLF001
            _step.reset(token)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **others: Any,  # noqa: ANN401 - transformers' own
) -> tuple[torch.Tensor, None]:
    """Of queries ``(rows, heads, 1, head_dim)`` over ``(rows, kv_heads, span, head_dim)``.

    Returns:
        ``(rows, 1, heads, head_dim)``, and no weights, as transformers' functions do.
    """
    step = _step.get()
    places = None
    if step is not None and _is_plain(query, key, value, others):
        layout = _Layout(query.shape[1], key.shape[1], key.stride(1) // key.shape[3])
        places = step.find(attention_mask, layout)
    if places is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return output
    rows, heads, _, size = query.shape
    places.products.values().zero_()  # else what is not a number stays, as 0 times itself
    products = torch.sparse.sampled_addmm(
        places.products,
        query.reshape(rows * heads, size),
        _table(key).t(),
        beta=0.0,
        alpha=size**-0.5 if scaling is None else scaling,
        out=places.products,
    )
    # What lies beyond a row's keys stays -inf from layer to layer.
    places.scores.view(-1).index_copy_(0, places.flat, products.values())
    weights = places.scores.softmax(-1).view(-1).index_select(0, places.flat)
    sums = embedding_bag(
        products.col_indices(),
        _table(value),
        products.crow_indices(),
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )
    return sums.view(rows, 1, heads, value.shape[3]), None


def _is_plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, others: dict[str, Any]
) -> bool:
    """Whether these are a step's own rows in the memory of its slots, and nothing is added."""
    return (
        query.shape[2] == 1
        and query.dtype is key.dtype is value.dtype is torch.float32
        and _is_of_slots(key)
        and _is_of_slots(value)
        and others.get("position_bias") is None
        and others.get("softcap") is None
    )


def _is_of_slots(tensor: torch.Tensor) -> bool:
    """Whether it is ``(slots, heads, length, head_dim)`` without gaps, cut to rows and a span."""
    _, heads, _, size = tensor.shape
    per_slot, per_head, per_token, per_number = tensor.stride()
    lies_together = per_number == 1 and per_token == size and per_slot == heads * per_head
    return lies_together and tensor.shape[0] * per_slot <= _MOST_PLACES * size


def _table(tensor: torch.Tensor) -> torch.Tensor:
    """The memory of the rows' slots: all tokens of all heads, one below the other."""
    rows, heads, _, size = tensor.shape
    return tensor.as_strided((rows * heads * (tensor.stride(1) // size), size), (size, 1))


def _places(lengths: Sequence[int], window: int | None, layout: _Layout) -> _Places:
    """For rows of so many tokens, of which they see all or the last so many."""
    # By numpy, which makes small arrays in a third of the time; it is done anew for each step.
    starts = [0 if window is None else max(0, length - window) for length in lengths]
    counts = [length - start for length, start in zip(lengths, starts, strict=True)]
    rows, heads = len(lengths), layout.heads
    most, total = max(counts), heads * sum(counts)
    slots = np.arange(rows * layout.kv_heads).reshape(rows, layout.kv_heads) * layout.length
    firsts = np.repeat(slots, heads // layout.kv_heads, axis=1)
    firsts = (firsts + np.asarray(starts)[:, None]).ravel()  # (rows * heads,)
    each = np.repeat(counts, heads)  # keys of each query
    bounds = np.zeros(rows * heads + 1, dtype=np.int64)
    np.cumsum(each, out=bounds[1:])
    keys = np.arange(total)  # of all queries, one after another
    columns = keys + np.repeat(firsts - bounds[:-1], each)
    flat = keys + np.repeat(np.arange(rows * heads) * most - bounds[:-1], each)
    products = _sparse(
        torch.from_numpy(bounds.astype(np.int32)),
        torch.from_numpy(columns.astype(np.int32)),
        (rows * heads, rows * layout.kv_heads * layout.length),
    )
    scores = torch.full((rows * heads, most), -torch.inf, dtype=torch.float32)
    return _Places(products, scores, torch.from_numpy(flat))


def _sparse(bounds: torch.Tensor, columns: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    values = torch.zeros(len(columns), dtype=torch.float32)
    return torch.sparse_csr_tensor(bounds, columns, values, size=shape, check_invariants=False)


def _is_alike(found: Any, config: Any) -> bool:  # noqa: ANN401
    return found is not None and getattr(found, "model_type", None) == config.model_type


with warnings.catch_warnings():
    # Said once in a process, of all sparse tensors: that they may change with torch's version.
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
    _sparse(torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), (0, 0))
AttentionInterface.register(_NAME, _attend)
