"""The next token of each row of a batch: all rows at once, on the device, waited for once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.engine.draw import Draw
from worker.engine.penalties import Penalties
from worker.engine.sampler import Sampler
from worker.engine.tokens import Token
from worker.engine.upload import upload

# What OpenAI says of the impossible: JSON has no infinity.
LEAST_LOGPROB = -9999.0
_FORBIDDEN = float("-inf")
_WORD_BITS = 32  # tokens of a word in a grammar's mask


class SamplingBatch:
    """Samples for one batch, whose rows come and go.

    What is the same from step to step is kept on the device until another row joins or one leaves.
    Nothing of a sampler changes before the device has been waited for, so that a step that fails
    can be made again. The order is that of transformers: bias, penalties, what may not come, then
    temperature, top-k, top-p and min-p.
    """

    def __init__(self) -> None:
        self._rows: _Rows | None = None

    def forget(self) -> None:
        """All rows have left."""
        self._rows = None

    @torch.inference_mode()
    def sample(self, samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Token]:
        """One token for each row.

        Args:
            samplers: one a row.
            logits: ``(rows, vocab_size)``, any float dtype, any device.
        """
        if all(sampler.takes_likeliest for sampler in samplers):
            tokens = [Token(each) for each in logits.argmax(dim=-1).tolist()]
        else:
            if self._rows is None or not self._rows.are(samplers, logits):
                self._rows = _Rows(samplers, logits)
            tokens = self._rows.sample(logits)
        for sampler, token in zip(samplers, tokens, strict=True):
            if token.error is None:
                sampler.accept(token)
        return tokens


class _Rows:
    """Rows that were sampled for together, with their settings on the device."""

    def __init__(self, samplers: Sequence[Sampler], logits: torch.Tensor) -> None:
        self._samplers = tuple(samplers)
        self._vocab_size, self._device = logits.shape[1], logits.device
        rows = range(len(samplers))
        # As a tensor, as a number would be brought to the device each time, and waited for.
        self._forbidden = torch.full((1,), _FORBIDDEN, device=self._device)
        self._bias = self._biases()
        has_penalties = any(each.has_penalties for each in samplers)
        self._penalties = (
            Penalties(samplers, self._vocab_size, self._device) if has_penalties else None
        )
        drawing = [row for row in rows if not samplers[row].is_greedy]
        self._drawing = self._indices(drawing)
        self._draw = (
            Draw([samplers[row] for row in drawing], self._vocab_size, self._device)
            if drawing
            else None
        )
        self._held = [row for row in rows if samplers[row].constraint is not None]  # to grammars
        self._held_rows = self._indices(self._held)
        self._bits = torch.arange(_WORD_BITS, dtype=torch.int32, device=self._device)
        self._telling = [row for row in rows if samplers[row].logprobs is not None]
        told = [samplers[row].logprobs or 0 for row in self._telling]
        self._told = min(max(told, default=0), self._vocab_size)  # likeliest tokens, at most
        self._telling_rows = self._indices(self._telling)

    def are(self, samplers: Sequence[Sampler], logits: torch.Tensor) -> bool:
        """Whether it is for these."""
        return (
            self._samplers == tuple(samplers)
            and self._vocab_size == logits.shape[1]
            and self._device == logits.device
        )

    def sample(self, logits: torch.Tensor) -> list[Token]:
        """A token for each row; ``logits`` are not changed."""
        # While the device is still busy with the step, the CPU finds what may come next.
        mask = self._allowed()
        scores = logits.to(dtype=torch.float32, copy=True)
        if self._bias is not None:
            rows, ids, values = self._bias
            scores[rows, ids] += values
        if self._penalties is not None:
            self._penalties.apply(scores)
        self._bar(scores)
        if mask is not None:
            rows, allowed = mask
            scores[rows] = scores[rows].masked_fill(~allowed, _FORBIDDEN)
        ids = scores.argmax(dim=-1)
        if self._draw is not None:
            ids[self._drawing] = self._draw.tokens(scores[self._drawing])
        tokens = self._read(ids, logits)
        if self._penalties is not None:
            self._penalties.count(ids)
        return tokens

    def _indices(self, rows: Sequence[int]) -> torch.Tensor:
        return upload(rows, torch.long, self._device)

    def _biases(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """What is added where: rows, token ids and values."""
        found = [
            (row, token_id, value)
            for row, sampler in enumerate(self._samplers)
            for token_id, value in sampler.logit_bias
        ]
        if not found:
            return None
        rows, ids, values = zip(*found, strict=True)
        added = upload(values, torch.float32, self._device)
        return self._indices(rows), self._indices(ids), added

    def _bar(self, scores: torch.Tensor) -> None:
        """Forbids what may not come yet, in place."""
        barred = [
            (row, token_id)
            for row, sampler in enumerate(self._samplers)
            for token_id in sampler.barred_ids
            if token_id < self._vocab_size
        ]
        if barred:
            rows, ids = upload(barred, torch.long, self._device).T
            scores.index_put_((rows, ids), self._forbidden)

    def _allowed(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Rows that are held to a grammar, and which tokens it allows: ``(these, vocab_size)``."""
        held = [self._samplers[row].constraint for row in self._held]
        constraints = [constraint for constraint in held if constraint is not None]
        if not constraints:
            return None
        # Adapters may bring tokenizers of their own: what is beyond one's tokens may not come.
        width = max(constraint.words for constraint in constraints)
        is_pinned = self._device.type == "cuda"
        words = torch.zeros(len(held), width, dtype=torch.int32, pin_memory=is_pinned)
        for row, constraint in zip(words, constraints, strict=True):
            if constraint.error is None:
                constraint.fill(row)
            else:
                row.fill_(-1)  # whatever comes: the answer ends with its error
        words = words.to(self._device, non_blocking=True)
        allowed = (words[..., None] >> self._bits & 1).bool().flatten(1)[:, : self._vocab_size]
        # Embeddings that are there for alignment alone have no token.
        missing = self._vocab_size - allowed.shape[1]
        return self._held_rows, torch.nn.functional.pad(allowed, (0, missing), value=False)

    def _read(self, ids: torch.Tensor, logits: torch.Tensor) -> list[Token]:
        """Waits for the device, once, and says what was chosen."""
        packed = [ids.to(torch.int32)]
        if self._telling:
            # The model's own probabilities, whatever the request makes of them.
            own = logits[self._telling_rows].to(torch.float32).log_softmax(dim=-1)
            own.clamp_(min=LEAST_LOGPROB)
            chosen = own.gather(1, ids[self._telling_rows][:, None])
            best = own.topk(self._told, dim=-1)
            packed += [
                chosen.flatten().view(torch.int32),
                best.indices.to(torch.int32).flatten(),
                best.values.flatten().view(torch.int32),
            ]
        read = torch.cat(packed).cpu()
        told = len(self._telling)
        token_ids, chosen_values, best_ids, best_values = torch.split(
            read, [len(self._samplers), told, told * self._told, told * self._told]
        )
        tokens = [Token(each) for each in token_ids.tolist()]
        figures = zip(
            self._telling,
            chosen_values.view(torch.float32).tolist(),
            best_ids.view(told, self._told).tolist(),
            best_values.view(torch.float32).view(told, self._told).tolist(),
            strict=True,
        )
        for row, logprob, ids_told, values_told in figures:
            asked = self._samplers[row].logprobs or 0
            tokens[row] = Token(
                tokens[row],
                logprob=logprob,
                likeliest=tuple(zip(ids_told, values_told, strict=True))[:asked],
            )
        return [self._checked(row, token) for row, token in enumerate(tokens)]

    def _checked(self, row: int, token: Token) -> Token:
        """The token, or why there is none."""
        constraint = self._samplers[row].constraint
        error = None if constraint is None else constraint.error
        return token if error is None else Token(token, error=error)
