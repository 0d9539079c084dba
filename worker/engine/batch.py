"""The rows that share the model now, and one step of all of them. No loop, no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from controller.protocol.errors import DeviceLostError, OutOfMemoryError, ParagoneError
from worker.engine.answer import Answer
from worker.engine.job import Job, PreparedT, internal_error
from worker.engine.pacing import PrefillPacer
from worker.engine.protocol import Finished, SamplingParams, TextDelta
from worker.engine.queued import ServedModel

# The pace that is reported is taken over this many recent decode steps.
RECENT_STEPS = 64

RowT = TypeVar("RowT")


class BatchModel(ServedModel[PreparedT], Protocol[PreparedT, RowT]):
    """A model that decodes several answers together; see `worker.engine.slot_model`.

    A row is the model's own; it is open from `open` to `close`. All of this is called on the
    model's thread.
    """

    def open(self, prepared: PreparedT, sampling: SamplingParams) -> RowT:
        """A row for an answer, its images encoded.

        Raises:
            OutOfMemoryError: this answer does not fit; others may.
            DeviceLostError: nothing can run on this device any more.
        """
        ...

    def prefill(self, row: RowT, max_tokens: int) -> int | None:
        """Reads the next part of the prompt; the first token of the answer after the last.

        Raises:
            OutOfMemoryError: this answer does not fit; others may.
            DeviceLostError: nothing can run on this device any more.
        """
        ...

    def step(self, rows: Sequence[RowT]) -> list[int]:
        """The next token of each row.

        Args:
            rows: all open rows whose prompts have been read.

        Raises:
            OutOfMemoryError: nothing has changed; fewer rows may fit.
            DeviceLostError: nothing can run on this device any more.
        """
        ...

    def close(self, row: RowT) -> None:
        """Frees what the row holds. Never fails."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery(Generic[PreparedT]):
    """Something for a job's client: text, or its end."""

    job: Job[PreparedT]
    event: TextDelta | Finished | ParagoneError


@dataclass(slots=True, eq=False)
class _Row(Generic[PreparedT, RowT]):
    job: Job[PreparedT]
    answer: Answer
    unread: int  # prompt tokens
    handle: RowT | None = None


class Batch(Generic[PreparedT, RowT]):
    """Rows that join and leave between steps; belongs to the model's thread.

    A step reads a part of the first prompt that is not read yet, as much as the pacer allows, and
    then makes one token for each row whose prompt has been read. Whatever happens, each row is
    delivered exactly one end, and is closed before.

    Args:
        model: what runs.
        begin: the beginning of a job's answer.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        model: BatchModel[PreparedT, RowT],
        *,
        begin: Callable[[Job[PreparedT]], Answer],
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._begin = begin
        self._clock = clock
        self._pacer = PrefillPacer()
        self._reading: list[_Row[PreparedT, RowT]] = []  # by arrival; prompts not read yet
        self._decoding: list[_Row[PreparedT, RowT]] = []  # by the end of their prompts
        self._out: list[Delivery[PreparedT]] = []
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS)  # tokens, seconds
        self.decode_steps = 0
        self.tokens_per_second: float | None = None  # of recent steps, all rows together

    def __len__(self) -> int:
        return len(self._reading) + len(self._decoding)

    def join(self, job: Job[PreparedT]) -> None:
        """A new row; its prompt is read in the steps to come."""
        self._reading.append(_Row(job, self._begin(job), job.prompt.prompt_tokens))

    def step(self) -> list[Delivery[PreparedT]]:
        """One step of all rows, and what came of it, in order."""
        try:
            self._drop_aborted()
            self._read_prompts()
            self._decode()
        except DeviceLostError as exc:
            for row in tuple(self._rows()):
                self._leave(row, exc)
        out, self._out = self._out, []
        return out

    def _rows(self) -> Iterable[_Row[PreparedT, RowT]]:
        return (*self._reading, *self._decoding)

    def _drop_aborted(self) -> None:
        for row in tuple(self._rows()):
            if row.job.aborted.is_set():
                self._leave(row, row.job.finished(row.answer, self._clock()))

    def _read_prompts(self) -> None:
        budget = self._pacer.budget(is_decoding=bool(self._decoding))
        while self._reading and budget > 0:
            row = self._reading[0]
            try:
                budget -= row.job.context.run(self._read, row, budget)
            except DeviceLostError:
                raise
            except ParagoneError as exc:
                self._leave(row, exc)
            except Exception as exc:  # noqa: BLE001 - one request's bug is not another's
                self._leave(row, _bug(row.job, exc, "reading the prompt"))

    def _read(self, row: _Row[PreparedT, RowT], budget: int) -> int:
        """A part of a row's prompt; how much of the budget it took."""
        job = row.job
        if row.handle is None:
            job.timing.started = self._clock()
            row.handle = self._model.open(job.prompt, job.request.sampling)
            if job.prompt.image_tokens and self._decoding:
                # Images cannot be encoded in parts. The streams have waited for long enough.
                return budget
        part = min(budget, row.unread)
        before = self._clock()
        token_id = self._model.prefill(row.handle, part)
        self._pacer.prefilled(part, self._clock() - before)
        row.unread -= part
        if row.unread == 0:
            if token_id is None:
                raise RuntimeError("the whole prompt gave no token")
            self._reading.remove(row)
            self._decoding.append(row)
            self._push(row, token_id)
        return part

    def _decode(self) -> None:
        while self._decoding:
            rows = tuple(self._decoding)
            before = self._clock()
            try:
                token_ids = self._model.step([row.handle for row in rows if row.handle is not None])
            except DeviceLostError:
                raise
            except OutOfMemoryError as exc:
                # The others may fit without the newest; nothing of theirs has changed.
                self._leave(rows[-1], exc)
                continue
            except Exception as exc:  # noqa: BLE001 - the rows fail; the worker goes on
                for row in rows:
                    self._leave(row, _bug(row.job, exc, "generating"))
                return
            self._measured(len(rows), self._clock() - before)
            for row, token_id in zip(rows, token_ids, strict=True):
                self._push(row, token_id)
            return

    def _measured(self, tokens: int, seconds: float) -> None:
        self._pacer.decoded(seconds)
        self._recent.append((tokens, seconds))
        self.decode_steps += 1
        total = sum(duration for _, duration in self._recent)
        if total > 0:
            self.tokens_per_second = round(sum(count for count, _ in self._recent) / total, 2)

    def _push(self, row: _Row[PreparedT, RowT], token_id: int) -> None:
        """A new token of a row; the row leaves if it was the last."""
        row.job.timing.mark_token(self._clock())
        try:
            delta = row.answer.push(token_id)
        except ParagoneError as exc:
            self._leave(row, exc)
            return
        except Exception as exc:  # noqa: BLE001 - one request's bug is not another's
            self._leave(row, _bug(row.job, exc, "decoding"))
            return
        if delta is not None:
            self._out.append(Delivery(row.job, delta))
        if row.answer.finish_reason is not None:
            self._leave(row, row.job.finished(row.answer, self._clock()))

    def _leave(self, row: _Row[PreparedT, RowT], end: Finished | ParagoneError) -> None:
        for rows in (self._reading, self._decoding):
            if row in rows:
                rows.remove(row)
        if row.handle is not None:
            self._model.close(row.handle)
            row.handle = None
        self._out.append(Delivery(row.job, end))


def _bug(job: Job[PreparedT], exc: Exception, doing: str) -> ParagoneError:
    """Logs with the request's id, and fails it."""
    return job.context.run(internal_error, exc, doing, job.request)
