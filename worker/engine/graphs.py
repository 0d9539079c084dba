"""Decode steps that are recorded once and replayed: one call instead of a thousand launches.

A CUDA graph is bound to sizes and addresses. So steps have few sizes, rows that are missing are
padded, the numbers that change lie in memory of their own, and all is forgotten when the memory of
keys and values moves. Recording itself is given from outside: with a plain call in its place all
the rest runs on any device.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

from worker.engine.kv_slots import LENGTH_STEP, KVSlots
from worker.engine.upload import upload

_log = logging.getLogger(__name__)

Work = Callable[[], torch.Tensor]
# Records work, which it may or may not do meanwhile; what it returns does the same work again.
Capture = Callable[[Work], Work]
# Lengths, last tokens and shifts, ``(rows,)`` each, and the longest: logits ``(rows, vocab_size)``.
Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
# Length, last token, and shift of the positions, of one row.
RowNumbers = tuple[int, int, int]

# A size is recorded when it comes again: rows come and go, and most sizes are passed through. The
# plain steps before also load kernels and libraries, which cannot be done while recording.
PLAIN_STEPS = 3
# Recorded at once; each takes some MiB of the device's memory.
MAX_RECORDED = 64
# How far a replay's logits may lie from the step's, as a share of the largest: kernels may differ.
_TOLERANCE = 0.02
# Spans grow by a quarter at most: what lies beyond a row's own tokens is read for nothing.
LEAST_SPAN = 4 * LENGTH_STEP
_PADDING: RowNumbers = (0, 0, 0)  # it writes to a free slot, and looks at nothing else


@dataclass(slots=True)
class _Step:
    """Steps of one size."""

    inputs: torch.Tensor  # (3, rows) int64: lengths, last tokens, shifts
    work: Work
    runs: int = 0
    replay: Work | None = None


class DecodeGraphs:
    """The forward pass of decode steps. Belongs to the model's thread.

    Args:
        kv: where the rows' keys and values are.
        forward: the pass; it begins with `KVSlots.begin_step`, and waits for nothing.
        route: sends the first rows of a step of so many through their adapters, the others through
            any; what it returns says which way they go.
        device: of the model.
        capture: records work; None: every step is made as it comes.
    """

    def __init__(
        self,
        kv: KVSlots,
        forward: Forward,
        route: Callable[[int], Hashable],
        device: torch.device,
        capture: Capture | None = None,
    ) -> None:
        self._kv = kv
        self._forward = forward
        self._route = route
        self._device = device
        self._capture = capture
        self._steps: OrderedDict[Hashable, _Step] = OrderedDict()
        # What the recorded steps are for; not kept in memory by them.
        self._memory: weakref.ref[torch.Tensor] | None = None
        self._failure: str | None = None  # why nothing is recorded any more

    @property
    def is_on(self) -> bool:
        """Whether steps are recorded."""
        return self._capture is not None and self._failure is None

    @property
    def state(self) -> str | None:
        """``on``, or why not any more; None where steps were never to be recorded."""
        if self._capture is None:
            return None
        return "on" if self._failure is None else f"off: {self._failure}"

    @property
    def recorded(self) -> int:
        """Steps that were recorded, and are still of use."""
        return sum(step.replay is not None for step in self._steps.values())

    def logits(self, rows: Sequence[RowNumbers]) -> torch.Tensor:
        """What comes next in each row: ``(rows, vocab_size)``, valid until the next step.

        Raises:
            KVFullError: there is no memory for another token of each; nothing has changed.
        """
        longest = max(length for length, _, _ in rows)
        memory = self._kv.layers[0].keys
        if not self.is_on or memory is None or longest >= memory.shape[2]:
            # Where memory has to grow, what is recorded is lost anyway.
            self._route(len(rows))
            lengths, last, shifts = upload(rows, torch.long, self._device).T
            return self._forward(lengths, last, shifts, longest)
        if self._memory is None or self._memory() is not memory:
            self._forget()
            self._memory = weakref.ref(memory)
        # Never more than there is memory for: a step must not need more than its rows do.
        batch = min(batch_size(len(rows)), memory.shape[0])
        step = self._step(batch, min(span_of(longest + 1), memory.shape[2]))
        padded = [*rows, *[_PADDING] * (batch - len(rows))]
        step.inputs.copy_(upload(padded, torch.long, self._device).T)
        return self._run(step)[: len(rows)]

    def release(self) -> int:
        """Forgets what was recorded; how many steps that were."""
        count = self.recorded
        self._forget()
        return count

    def _step(self, batch: int, span: int) -> _Step:
        key = (batch, span, self._route(batch))
        step = self._steps.get(key)
        if step is None:
            inputs = torch.zeros(3, batch, dtype=torch.long, device=self._device)
            lengths, last, shifts = inputs
            step = _Step(inputs, lambda: self._forward(lengths, last, shifts, span - 1))
            self._steps[key] = step
        self._steps.move_to_end(key)
        if len(self._steps) > MAX_RECORDED:
            self._steps.popitem(last=False)
        return step

    def _run(self, step: _Step) -> torch.Tensor:
        if step.replay is None and step.runs >= PLAIN_STEPS:
            step.replay = self._recorded(step.work)
        step.runs += 1
        return (step.replay or step.work)()

    def _recorded(self, work: Work) -> Work | None:
        if self._capture is None:
            return None
        try:
            # The same step three times writes the same three times. Once for each size, so that a
            # graph that went wrong on this machine is never believed.
            expected = work().clone()
            replay = self._capture(work)
            _require_alike(replay(), expected)
        except RuntimeError as exc:  # of which all of torch's errors are
            self._failure = str(exc).strip().splitlines()[0] if str(exc).strip() else repr(exc)
            self._forget()
            _log.warning(
                "a decode step could not be recorded as a CUDA graph; steps are launched kernel by "
                "kernel from here on, which takes longer (--no-cuda-graphs does so from the "
                "start): %s",
                self._failure,
            )
            return None
        return replay

    def _forget(self) -> None:
        self._steps.clear()
        self._memory = None


class CudaCapture:
    """Records work on a device as a CUDA graph. Nothing is computed while recording."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One pool for all: they never run at the same time.
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own

    def __call__(self, work: Work) -> Work:
        """See `Capture`.

        Raises:
            RuntimeError: it does what cannot be recorded, such as to wait for the device.
        """
        graph = torch.cuda.CUDAGraph()
        # Other threads may meanwhile do what would end a recording, on streams of their own.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            logits = work()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay


def _require_alike(logits: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = _TOLERANCE * float(expected.abs().max())
    if not torch.allclose(logits, expected, rtol=0, atol=tolerance, equal_nan=True):
        raise RuntimeError("its replay gives other logits than the step itself")


def batch_size(rows: int) -> int:
    """The size that so many rows are padded to: 1, 2, 4, and multiples of 8."""
    return 1 << (rows - 1).bit_length() if rows <= 4 else -(-rows // 8) * 8


def span_of(tokens: int) -> int:
    """The span that so many tokens are padded to: four sizes between a power of 2 and the next."""
    if tokens <= LEAST_SPAN:
        return LEAST_SPAN
    step = 1 << ((tokens - 1).bit_length() - 3)
    return -(-tokens // step) * step
