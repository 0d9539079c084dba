"""One column's answer to one turn: how it grows, how it ends, and what a person thought of it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from controller.protocol.chat import ChatCompletionChunk, FinishReason, Metrics, Usage
from controller.protocol.fleet import ModelCard
from webui.sampling import Sampling


class AnswerState(StrEnum):
    """Where an answer is. The last four are ends."""

    WAITING = "waiting"  # asked; nothing has arrived
    STREAMING = "streaming"  # text is arriving
    DONE = "done"  # the model ended it; the finish reason says how
    STOPPED = "stopped"  # a person stopped it, or closed the page
    FAILED = "failed"  # an error ended it
    CUT = "cut"  # this server ended, or was killed, while it was written


class Rating(StrEnum):
    """What a person thought of an answer."""

    UP = "up"  # good
    DOWN = "down"  # bad
    FLAG = "flag"  # should not have been said


@dataclass(frozen=True, slots=True)
class Feedback:
    """A person's word on one answer."""

    rating: Rating | None = None
    reasons: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class AskedModel:
    """Who was asked, as the fleet described it then."""

    card: ModelCard
    memory_bytes: int | None = None  # of the worker: on its device, or of the process on a CPU


@dataclass(slots=True)
class Answer:
    """An answer, as far as it has come.

    ``metrics`` and ``usage`` come from the worker with the end of the answer; until then the
    page's own clock (`time.monotonic`) says when it was asked and when text arrived. ``request``
    is the body that was sent, with ``paragone-image:DIGEST`` in the place of each image's bytes.
    """

    model: str
    asked_at: float  # monotonic; only differences from it mean anything
    sampling: Sampling = field(default_factory=Sampling)
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    attempt: int = 0  # grows with each Retry; the last one is shown
    created_at: float = field(default_factory=time.time)  # Unix seconds
    state: AnswerState = AnswerState.WAITING
    text: str = ""
    kept_chars: int = 0  # of the text, from before a Continue
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    metrics: Metrics | None = None
    error: str | None = None
    error_code: str | None = None
    request: dict[str, Any] | None = None
    asked: AskedModel | None = None
    worker_id: str | None = None
    feedback: Feedback = Feedback()
    first_text_at: float | None = None
    last_text_at: float | None = None
    num_pieces: int = 0  # deltas with text; one token each, as a rule
    version: int = 0  # grows with every change that can be seen
    saved_version: int = -1  # the one that the store has; -1: it has none

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will arrive."""
        return self.state not in (AnswerState.WAITING, AnswerState.STREAMING)

    @property
    def can_continue(self) -> bool:
        """Whether it ended before the model was done with it, and has text to go on from."""
        was_cut_short = self.state in (AnswerState.STOPPED, AnswerState.FAILED, AnswerState.CUT)
        at_the_limit = (
            self.state is AnswerState.DONE and self.finish_reason is not FinishReason.STOP
        )
        return bool(self.text) and (was_cut_short or at_the_limit)

    def take(self, chunk: ChatCompletionChunk, *, now: float) -> None:
        """Adds what a chunk brings."""
        for choice in chunk.choices:
            if choice.delta.content:
                self.text += choice.delta.content
                self.num_pieces += 1
                self.state = AnswerState.STREAMING
                self.first_text_at = now if self.first_text_at is None else self.first_text_at
                self.last_text_at = now
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage
        self.metrics = chunk.metrics or self.metrics
        self.version += 1

    def resume(self, *, now: float) -> None:
        """Asks for more of a text that was cut short; the figures begin anew."""
        self.kept_chars = len(self.text)
        self.asked_at = now
        self.state = AnswerState.WAITING
        self.finish_reason = self.usage = self.metrics = None
        self.error = self.error_code = self.worker_id = None
        self.first_text_at = self.last_text_at = None
        self.num_pieces = 0
        self.version += 1

    def finish(self) -> None:
        """The stream has come to its proper end."""
        self._end(AnswerState.DONE)

    def stop(self) -> None:
        """A person has stopped it. What had already ended stays as it was."""
        self._end(AnswerState.STOPPED)

    def cut(self) -> None:
        """This server is about to end."""
        self._end(AnswerState.CUT)

    def fail(self, message: str, *, code: str | None = None) -> None:
        """An error has ended it; the text so far is kept."""
        if not self.has_ended:
            self.error, self.error_code = message, code
        self._end(AnswerState.FAILED)

    def judge(self, feedback: Feedback) -> None:
        """Notes what a person thinks of it."""
        self.feedback = feedback
        self.version += 1

    def _end(self, state: AnswerState) -> None:
        if not self.has_ended:
            self.state = state
            self.version += 1
