"""A transformers model, many answers together: images, prompts in parts, one step for all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from worker.checkpoint.prompt import PreparedPrompt
from worker.engine.checkpoint_model import CheckpointModel
from worker.engine.kv_slots import KVSlots
from worker.engine.protocol import SamplingParams
from worker.engine.sampler import Sampler
from worker.engine.sampling_batch import SamplingBatch

if TYPE_CHECKING:
    from worker.checkpoint.load import LoadedCheckpoint


@dataclass(slots=True, eq=False)
class SlotRow:
    """An answer in the making.

    While its prompt is read it has a cache of its own, so that it is read exactly as it would be
    alone; then it has a slot among the others.
    """

    sampler: Sampler
    embeddings: torch.Tensor  # (1, tokens, hidden): what is left of the prompt
    prompt: DynamicCache | None
    slot: int | None = None
    length: int = 0  # tokens in its slot
    last_token: int = 0


class SlotModel(CheckpointModel):
    """A loaded checkpoint as the batched engine runs it.

    Args:
        checkpoint: of a family that `worker.engine.batchable` lets through.
        kv_tokens: tokens that the cache may hold; bounds the context.
    """

    def __init__(self, checkpoint: LoadedCheckpoint, *, kv_tokens: int | None = None) -> None:
        super().__init__(checkpoint)
        if kv_tokens is not None:
            self.context_length = min(self.context_length, kv_tokens)
        self._text_config = self._model.config.get_text_config(decoder=True)
        self._slots: list[SlotRow] = []  # the row of each slot
        self._kv = KVSlots(self._text_config.num_hidden_layers)
        self._sampling = SamplingBatch()

    @property
    def kv_reserved_tokens(self) -> int:
        """Tokens that the rows' cache has memory for now."""
        return self._kv.reserved_tokens

    def open(self, prepared: PreparedPrompt, sampling: SamplingParams) -> SlotRow:
        """See `BatchModel.open`."""
        with self._translated(), torch.inference_mode():
            embeddings = self._embed(prepared)
        return SlotRow(
            sampler=self._sampler(sampling, prepared),
            embeddings=embeddings,
            prompt=DynamicCache(config=self._text_config),
        )

    def prefill(self, row: SlotRow, max_tokens: int) -> int | None:
        """See `BatchModel.prefill`."""
        with self._translated(), torch.inference_mode():
            part = row.embeddings[:, :max_tokens]
            logits = self._forward(inputs_embeds=part, past_key_values=row.prompt)
            row.embeddings = row.embeddings[:, max_tokens:]
            if row.embeddings.shape[1]:
                return None
            if row.prompt is None:
                raise RuntimeError("a prompt is read once")
            row.length = row.prompt.get_seq_length()
            self._kv.store(len(self._slots), row.prompt)
            row.slot, row.prompt = len(self._slots), None
            self._slots.append(row)
            (row.last_token,) = self._sampling.sample([row.sampler], logits)
            return row.last_token

    def step(self, rows: Sequence[SlotRow]) -> list[int]:
        """See `BatchModel.step`."""
        if len(rows) != len(self._slots):
            raise ValueError(f"{len(rows)} rows to step, and {len(self._slots)} are open")
        with self._translated(), torch.inference_mode():
            device = self._checkpoint.device
            lengths = [row.length for row in self._slots]
            positions = torch.tensor(lengths, device=device)
            last = torch.tensor([[row.last_token] for row in self._slots], device=device)
            logits = self._forward(
                input_ids=last,
                attention_mask=self._kv.begin_step(positions, max(lengths)),
                position_ids=positions[:, None],
                past_key_values=self._kv,
            )
            tokens = self._sampling.sample([row.sampler for row in self._slots], logits)
        for row, token in zip(self._slots, tokens, strict=True):
            row.length += 1
            row.last_token = token
        return [row.last_token for row in rows]

    def close(self, row: SlotRow) -> None:
        """See `BatchModel.close`."""
        row.prompt = None
        if row.slot is None:
            return
        # The last row fills the gap, so that the rows of a step always lie together.
        last = self._slots.pop()
        if last is not row:
            with torch.inference_mode():
                self._kv.move(len(self._slots), row.slot, last.length)
            self._slots[row.slot], last.slot = last, row.slot
        row.slot = None
        if not self._slots:
            self._kv.clear()

    def _embed(self, prepared: PreparedPrompt) -> torch.Tensor:
        """The prompt as the language model takes it, images in their places."""
        inputs = self._checkpoint.inputs(prepared)
        ids = inputs.pop("input_ids")
        model = _unwrapped(self._model)
        embeddings: torch.Tensor = model.get_input_embeddings()(ids)
        placeholder = self._checkpoint.image_token_id
        if placeholder is not None and "pixel_values" in inputs:
            features = torch.cat(list(model.get_image_features(**inputs).pooler_output))
            places = ids.eq(placeholder)[..., None]
            embeddings = embeddings.masked_scatter(places, features.to(embeddings))
        return embeddings

    def _forward(self, **inputs: Any) -> torch.Tensor:  # noqa: ANN401 - transformers is untyped
        """Logits of the last positions: ``(rows, vocab_size)``."""
        output = self._model(use_cache=True, logits_to_keep=1, **inputs)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _two_tokens(self, prepared: PreparedPrompt) -> None:
        row = self.open(prepared, SamplingParams(seed=0))
        self.prefill(row, prepared.prompt_tokens)
        self.step([row])
        self.close(row)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as exc:
            error = self._translate(exc)
            if error is None:
                raise
            raise error from exc


def _unwrapped(model: Any) -> Any:  # noqa: ANN401 - transformers and PEFT are untyped
    """The model inside a PEFT model; the adapter's layers are in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
