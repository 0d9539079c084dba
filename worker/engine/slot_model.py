"""A transformers model, many answers together: images, prompts in parts, one step for all rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from worker.engine.batchable import Batching, batching_of
from worker.engine.checkpoint_model import CheckpointModel
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.graphs import PLAIN_STEPS, Capture, DecodeGraphs
from worker.engine.image_features import ImageFeatures
from worker.engine.kv_slots import LENGTH_STEP, KVSlots, rounded
from worker.engine.prefix_cache import KVPiece, PrefixCache
from worker.engine.prefix_tree import Keys
from worker.engine.prompt_reader import PromptReader, Reading
from worker.engine.protocol import CacheStats, Reuse, SamplingParams
from worker.engine.ragged_attention import RaggedAttention
from worker.engine.sampler import Sampler
from worker.engine.sampling_batch import SamplingBatch

if TYPE_CHECKING:
    from controller.protocol.fleet import ModelCard
    from worker.checkpoint.load import LoadedCheckpoint
    from worker.checkpoint.shared import SharedBase

DEFAULT_IMAGE_CACHE_BYTES = 256 * 2**20


@dataclass(slots=True, eq=False)
class SlotRow:
    """An answer in the making.

    While its tokens are read it has a cache of its own, so that it is read exactly as it would be
    alone; then it has a slot among the others.
    """

    prompt: EnginePrompt
    sampler: Sampler
    keys: Keys  # of the prompt's tokens
    reuse: Reuse = field(default_factory=Reuse)
    reading: Reading | None = None
    answer: list[int] = field(default_factory=list)
    slot: int | None = None
    length: int = 0  # tokens in its slot
    shift: int = 0  # of its positions against its tokens' places; not 0 after images of mrope
    last_token: int = 0


class SlotModel(CheckpointModel):
    """A loaded checkpoint, or several over one base, as the batched engine runs them.

    Args:
        checkpoints: of a family that `worker.engine.batchable` lets through.
        kv_tokens: tokens whose keys and values may be held, those of rows and those that are kept
            for requests to come; bounds the context. None is no limit.
        prefix_tokens: how many of them may be kept for requests to come; None: half of them.
        image_cache_bytes: what the features of images may take.
        shared: see `CheckpointModel`.
        capture: records decode steps, which are then replayed; None makes each as it comes.
    """

    def __init__(
        self,
        *checkpoints: LoadedCheckpoint,
        kv_tokens: int | None = None,
        prefix_tokens: int | None = None,
        image_cache_bytes: int = DEFAULT_IMAGE_CACHE_BYTES,
        shared: SharedBase | None = None,
        capture: Capture | None = None,
    ) -> None:
        limit = None if kv_tokens is None else max(LENGTH_STEP, kv_tokens - kv_tokens % LENGTH_STEP)
        super().__init__(*checkpoints, kv_tokens=limit, shared=shared)
        self._limit = limit
        config = self._model.config
        batching = batching_of(config)
        if not isinstance(batching, Batching):
            raise TypeError(f"this model cannot share a batch: {batching}")
        self._batching = batching
        if prefix_tokens is None and limit is not None:
            prefix_tokens = limit // 2
        self._prefixes = PrefixCache(prefix_tokens)
        self._images = ImageFeatures(image_cache_bytes)
        self._reader = PromptReader(self._model, batching, self._prefixes, self._images)
        self._slots: list[SlotRow] = []  # the row of each slot
        self._sampling = SamplingBatch()
        self._reading_tokens = 0  # that rows without a slot hold, or will soon
        text = config.get_text_config(decoder=True)
        self._attention = RaggedAttention(
            self._model,
            text,
            self._checkpoint.device,
            batching.window,
            is_recorded=capture is not None,
        )
        self._kv = KVSlots(
            text.num_hidden_layers,
            window=batching.window,
            admit=self._admit,
        )
        self._graphs = DecodeGraphs(
            self._kv, self._forward, self._route, self._checkpoint.device, capture
        )

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """What they are, and whether decode steps are recorded."""
        state, cards = self._graphs.state, super().cards
        if state is None:
            return cards
        return tuple(card.model_copy(update={"cuda_graphs": state}) for card in cards)

    @property
    def kv_reserved_tokens(self) -> int:
        """Tokens that the rows' cache has memory for now."""
        return self._kv.reserved_tokens

    @property
    def _row_tokens(self) -> int:
        """What the rows in the slots take of what is reserved."""
        return len(self._slots) * rounded(max((row.length for row in self._slots), default=0))

    def cache_stats(self) -> CacheStats:
        """What the caches hold and found."""
        return CacheStats(
            kv_tokens=self._limit,
            kv_used_tokens=self._row_tokens + self._reading_tokens + self._prefixes.tokens,
            prefix_queries=self._prefixes.queries,
            prefix_hits=self._prefixes.hits,
            image_queries=self._images.encoded + self._images.hits,
            image_hits=self._images.hits,
            image_bytes=self._images.num_bytes,
        )

    def has_room(self, tokens: int) -> bool:
        """See `BatchModel.has_room`: with some tokens to grow, so that it lasts."""
        if self._limit is None:
            return True
        longest = max([tokens, *(row.length for row in self._slots)])
        wanted = (len(self._slots) + 1) * rounded(longest + LENGTH_STEP)
        return wanted + self._reading_tokens <= self._limit

    def open(self, prompt: EnginePrompt, sampling: SamplingParams) -> SlotRow:
        """See `BatchModel.open`."""
        row = SlotRow(
            prompt=prompt,
            sampler=self._sampler(sampling, prompt),
            keys=self._reader.keys(prompt),
        )
        self.reopen(row)
        return row

    def reopen(self, row: SlotRow) -> None:
        """See `BatchModel.reopen`."""
        keys = self._keys(row)
        self._reading_tokens += len(keys)
        try:
            self._fit_prefixes()
            with self._translated(), torch.inference_mode():
                row.reading, row.reuse = self._reader.begin(row.prompt, keys, row.answer)
        except BaseException:
            self._reading_tokens -= len(keys)
            raise

    def unread(self, row: SlotRow) -> int:
        """See `BatchModel.unread`."""
        return 0 if row.reading is None else row.reading.unread

    def reuse(self, row: SlotRow) -> Reuse:
        """See `BatchModel.reuse`."""
        return row.reuse

    def prefill(self, row: SlotRow, max_tokens: int) -> int | None:
        """See `BatchModel.prefill`."""
        reading = row.reading
        if reading is None:
            raise RuntimeError("a row is opened before it is read")
        with self._translated(), torch.inference_mode():
            row.prompt.checkpoint.use()
            logits = self._reader.read(reading, max_tokens)
            if logits is None:
                return None
            keys = self._keys(row)
            self._prefixes.keep(
                row.prompt.checkpoint.text_identity, keys, _piece(reading.cache).after
            )
            # What is in the slot is there twice for a moment, and counted once.
            self._stop_reading(row)
            self._fit_prefixes()
            longest = max((other.length for other in self._slots), default=0)
            self._kv.store(len(self._slots), reading.cache, longest)
            row.slot, row.length, row.shift = len(self._slots), len(keys), reading.shift
            self._slots.append(row)
            (token,) = self._sampling.sample([row.sampler], logits)
            return self._said(row, token)

    def step(self, rows: Sequence[SlotRow]) -> list[int]:
        """See `BatchModel.step`."""
        if len(rows) != len(self._slots):
            raise ValueError(f"{len(rows)} rows to step, and {len(self._slots)} are open")
        with self._translated(), torch.inference_mode():
            logits = self._graphs.logits(
                [(row.length, row.last_token, row.shift) for row in self._slots]
            )
            tokens = self._sampling.sample([row.sampler for row in self._slots], logits)
        for row, token in zip(self._slots, tokens, strict=True):
            row.length += 1
            self._said(row, token)
        return [row.last_token for row in rows]

    def preempt(self, row: SlotRow) -> None:
        """See `BatchModel.preempt`."""
        self._leave_slot(row)
        self._stop_reading(row)

    def close(self, row: SlotRow) -> None:
        """See `BatchModel.close`."""
        self._leave_slot(row)
        self._stop_reading(row)

    def release_caches(self) -> bool:
        """See `BatchModel.release_caches`."""
        freed = self._prefixes.shrink_to(0) + self._images.release() + self._graphs.release()
        if not self._slots:
            freed += self._kv.reserved_tokens
            self._kv.clear()
        return freed > 0

    def rest(self) -> None:
        """See `BatchModel.rest`."""
        # Steps were recorded for this very memory.
        if not self._slots and not self._graphs.is_on:
            self._kv.clear()

    def release(self, checkpoint: LoadedCheckpoint) -> None:
        """See `CheckpointModel.release`."""
        self._prefixes.forget(checkpoint.text_identity)
        super().release(checkpoint)

    def _route(self, rows: int) -> Hashable:
        """Sends a step's rows through their adapters; see `DecodeGraphs`."""
        adapters = self._checkpoint.adapters
        if adapters is None:
            return None
        own = [row.prompt.checkpoint.adapter for row in self._slots]
        adapters.use_rows([*own, *own[:1] * (rows - len(own))])
        return adapters.route

    def _forward(
        self, lengths: torch.Tensor, last: torch.Tensor, shifts: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """The pass of a step; see `DecodeGraphs`."""
        full, near = self._kv.begin_step(lengths, longest)
        with self._attention.step([row.length + 1 for row in self._slots], full, near):
            return self._reader.forward(
                input_ids=last[:, None],
                attention_mask=self._batching.mask(full, near),
                position_ids=(lengths + shifts)[:, None],
                past_key_values=self._kv,
            )

    def _said(self, row: SlotRow, token: int) -> int:
        row.answer.append(token)
        row.last_token = token
        return token

    def _keys(self, row: SlotRow) -> Keys:
        """Of the prompt and what was said so far."""
        return np.concatenate([row.keys, np.asarray(row.answer, dtype=np.int64)])

    def _leave_slot(self, row: SlotRow) -> None:
        if row.slot is None:
            return
        slot, row.slot = row.slot, None
        with torch.inference_mode():
            self._prefixes.keep(
                row.prompt.checkpoint.text_identity,
                self._keys(row)[: row.length],
                lambda start: self._kv.piece(slot, start, row.length),
            )
            # The last row fills the gap, so that the rows of a step always lie together.
            last = self._slots.pop()
            if last is not row:
                self._kv.move(len(self._slots), slot, last.length)
                self._slots[slot], last.slot = last, slot
        if not self._slots:
            self._sampling.forget()
            if not self._keeps_memory():
                self._kv.clear()
        self._fit_prefixes()

    def _keeps_memory(self) -> bool:
        """Whether rows to come get the memory of those that left: taking it anew takes long."""
        return self._limit is None or 2 * self._kv.reserved_tokens <= self._limit

    def _stop_reading(self, row: SlotRow) -> None:
        if row.reading is not None:
            self._reading_tokens -= row.reading.tokens
            row.reading = None

    def _admit(self, tokens: int, is_needed: bool) -> bool:
        """Whether the slots may have memory for so many tokens in all."""
        if self._limit is None:
            return True
        free = self._limit - tokens - self._reading_tokens
        if is_needed and free >= 0:
            self._prefixes.shrink_to(free)
        return free >= self._prefixes.tokens

    def _fit_prefixes(self) -> None:
        """What is kept for later goes first when memory is short."""
        if self._limit is not None:
            if not self._slots and self._kv.reserved_tokens + self._reading_tokens > self._limit:
                self._kv.clear()
            self._prefixes.shrink_to(self._limit - self._kv.reserved_tokens - self._reading_tokens)

    def _two_tokens(self, prompt: EnginePrompt) -> None:
        row = self.open(prompt, SamplingParams(seed=0))
        self.prefill(row, prompt.prompt_tokens)
        for _ in range(PLAIN_STEPS + 1 if self._graphs.is_on else 1):
            self.step([row])
        self.close(row)
        self.release_caches()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as exc:
            error = self._translate(exc)
            if error is None:
                raise
            raise error from exc


def _piece(cache: DynamicCache) -> KVPiece:
    """A prompt's keys and values: the cache's own tensors, which nobody else writes to."""
    layers: Sequence[Any] = cache.layers
    return KVPiece(tuple(layer.keys for layer in layers), tuple(layer.values for layer in layers))
