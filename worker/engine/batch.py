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
from worker.engine.protocol import CacheStats, Finished, Reuse, SamplingParams, TextDelta
from worker.engine.queued import ServedModel

# The pace that is reported is taken over this many recent decode steps.
RECENT_STEPS = 64

RowT = TypeVar("RowT")


class KVFullError(Exception):
    """The keys and values of the rows together would need more memory than there is for them."""


class BatchModel(ServedModel[PreparedT], Protocol[PreparedT, RowT]):
    """A model that decodes several answers together; see `worker.engine.slot_model`.

    A row is the model's own; it is open from `open` to `close`. All of this is called on the
    model's thread.
    """

    def has_room(self, tokens: int) -> bool:
        """Whether another row, of so many tokens to begin with, fits beside those that are open."""
        ...

    def open(self, prepared: PreparedT, sampling: SamplingParams) -> RowT:
        """A row for an answer, its images encoded.

        Raises:
            OutOfMemoryError: this answer does not fit; others may.
            DeviceLostError: nothing can run on this device any more.
        """
        ...

    def reopen(self, row: RowT) -> None:
        """Begins to read a row again that was preempted; raises as `open` does."""
        ...

    def unread(self, row: RowT) -> int:
        """Tokens that are still to be read before the row's next token is known."""
        ...

    def reuse(self, row: RowT) -> Reuse:
        """What of the row's prompt was not computed anew when it was opened."""
        ...

    def prefill(self, row: RowT, max_tokens: int) -> int | None:
        """Reads the next part of the prompt; the next token of the answer after the last.

        Raises:
            KVFullError: the row has no place among the others now; nothing of theirs has changed.
            OutOfMemoryError: this answer does not fit; others may.
            DeviceLostError: nothing can run on this device any more.
        """
        ...

    def step(self, rows: Sequence[RowT]) -> list[int]:
        """The next token of each row.

        Args:
            rows: all open rows whose prompts have been read.

        Raises:
            KVFullError: nothing has changed; fewer rows will fit.
            OutOfMemoryError: nothing has changed; fewer rows may fit.
            DeviceLostError: nothing can run on this device any more.
        """
        ...

    def cache_stats(self) -> CacheStats:
        """What is kept between requests. Cheap; called on the loop's thread."""
        ...

    def preempt(self, row: RowT) -> None:
        """Frees what the row holds; it stays open and can be opened again, to be read again."""
        ...

    def release_caches(self) -> bool:
        """Gives up what is kept for requests to come; whether there was anything."""
        ...

    def rest(self) -> None:
        """Gives back memory that only waits for rows to come; none came for a while."""
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
    number: int  # by arrival
    length: int  # tokens that it has when it is read
    handle: RowT | None = None
    is_begun: bool = False  # its tokens are being read, or have been


class Batch(Generic[PreparedT, RowT]):
    """Rows that join and leave between steps; belongs to the model's thread.

    A step reads a part of the first prompt that is not read yet, as much as the pacer allows, and
    then makes one token for each row whose prompt has been read. Where keys and values do not fit
    any more, the newest row gives its memory up, and is read again later, prompt and answer.
    Whatever happens, each row is delivered exactly one end, and is closed before.

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
        self._joined = 0
        self.decode_steps = 0
        self.preemptions = 0
        self.tokens_per_second: float | None = None  # of recent steps, all rows together

    def __len__(self) -> int:
        return len(self._reading) + len(self._decoding)

    def join(self, job: Job[PreparedT]) -> None:
        """A new row; its prompt is read in the steps to come."""
        self._joined += 1
        self._reading.append(_Row(job, self._begin(job), self._joined, job.prompt.prompt_tokens))

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
            if not row.is_begun and self._decoding and not self._model.has_room(row.length):
                return  # those that run will end, or be preempted if they are newer
            try:
                budget -= row.job.context.run(self._read, row, budget)
            except DeviceLostError:
                raise
            except KVFullError as exc:
                if not self._decoding:
                    self._leave(row, _no_room(exc))
                    continue
                self._put_back(row)
                return
            except OutOfMemoryError as exc:
                if self._model.release_caches():
                    self._put_back(row)
                else:
                    self._leave(row, exc)
            except ParagoneError as exc:
                self._leave(row, exc)
            except Exception as exc:  # noqa: BLE001 - one request's bug is not another's
                self._leave(row, _bug(row.job, exc, "reading the prompt"))

    def _read(self, row: _Row[PreparedT, RowT], budget: int) -> int:
        """A part of a row's prompt; how much of the budget it took."""
        if not row.is_begun and self._open(row) and self._decoding:
            # Images cannot be encoded in parts. The streams have waited for long enough.
            return budget
        if row.handle is None:
            raise RuntimeError("a row is opened before it is read")
        part = min(budget, self._model.unread(row.handle))
        before = self._clock()
        token_id = self._model.prefill(row.handle, part)
        self._pacer.prefilled(part, self._clock() - before)
        if token_id is not None:
            self._reading.remove(row)
            self._decoding.append(row)
            self._push(row, token_id)
        return part

    def _open(self, row: _Row[PreparedT, RowT]) -> bool:
        """Begins to read a row; whether that took a pass through the vision tower."""
        job = row.job
        if row.handle is None:
            if job.timing.started is None:
                job.timing.started = self._clock()
            row.handle = self._model.open(job.prompt, job.request.sampling)
            job.reuse = self._model.reuse(row.handle)
        else:
            self._model.reopen(row.handle)
        row.is_begun = True
        return self._model.reuse(row.handle).encoded_images > 0

    def _decode(self) -> None:
        while self._decoding:
            rows = tuple(self._decoding)
            before = self._clock()
            try:
                token_ids = self._model.step([row.handle for row in rows if row.handle is not None])
            except DeviceLostError:
                raise
            except KVFullError as exc:
                newest = max(rows, key=lambda row: row.number)
                if len(rows) == 1:
                    self._leave(newest, _no_room(exc))
                else:
                    self._preempt(newest)
                continue
            except OutOfMemoryError as exc:
                if not self._model.release_caches():
                    # The others may fit without the newest; nothing of theirs has changed.
                    self._leave(max(rows, key=lambda row: row.number), exc)
                continue
            except Exception as exc:  # noqa: BLE001 - the rows fail; the worker goes on
                for row in rows:
                    self._leave(row, _bug(row.job, exc, "generating"))
                return
            self._measured(len(rows), self._clock() - before)
            for row, token_id in zip(rows, token_ids, strict=True):
                self._push(row, token_id)
            return

    def _preempt(self, row: _Row[PreparedT, RowT]) -> None:
        """Takes a row's memory for the others; it is read again when there is room."""
        self.preemptions += 1
        self._decoding.remove(row)
        self._put_back(row)
        row.length = row.job.prompt.prompt_tokens + row.answer.token_count
        # Before those that came later, but for one that is being read and holds memory.
        place = 0
        while place < len(self._reading) and (
            self._reading[place].is_begun or self._reading[place].number < row.number
        ):
            place += 1
        self._reading.insert(place, row)

    def _put_back(self, row: _Row[PreparedT, RowT]) -> None:
        row.is_begun = False
        if row.handle is not None:
            self._model.preempt(row.handle)

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


def _no_room(exc: KVFullError) -> OutOfMemoryError:
    """For a row that does not even fit alone."""
    return OutOfMemoryError(
        f"The memory for keys and values is too small for this answer alone ({exc}); shorten the "
        f"conversation, or start the worker with more --kv-cache-memory"
    )


def _bug(job: Job[PreparedT], exc: Exception, doing: str) -> ParagoneError:
    """Logs with the request's id, and fails it."""
    return job.context.run(internal_error, exc, doing, job.request)
