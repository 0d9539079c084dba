"""A conversation: turns that every column shares, and each column's own answers to them.

This is what is kept; what the page shows is made from it (`webui.chat_view`) and never read back.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from controller.protocol.chat import ChatCompletionChunk, FinishReason, Metrics, Usage
from webui.sampling import Sampling

MAX_COLUMNS = 4
MAX_TURNS = 100  # each update of a column sends its whole history through the server


class AnswerState(StrEnum):
    """Where an answer is. The last three are ends."""

    WAITING = "waiting"  # asked; nothing has arrived
    STREAMING = "streaming"  # text is arriving
    DONE = "done"  # the model ended it; the finish reason says how
    STOPPED = "stopped"  # a person stopped it, or closed the page
    FAILED = "failed"  # an error ended it


@dataclass(slots=True)
class Answer:
    """One column's answer to one turn, as far as it has come.

    ``metrics`` and ``usage`` come from the worker with the end of the answer; until then the
    page's own clock (`time.monotonic`) says when it was asked and when text arrived.
    """

    model: str
    asked_at: float
    state: AnswerState = AnswerState.WAITING
    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    metrics: Metrics | None = None
    error: str | None = None
    first_text_at: float | None = None
    last_text_at: float | None = None
    num_pieces: int = 0  # deltas with text; one token each, as a rule
    version: int = 0  # grows with every change that can be seen

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will arrive."""
        return self.state in (AnswerState.DONE, AnswerState.STOPPED, AnswerState.FAILED)

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

    def finish(self) -> None:
        """The stream has come to its proper end."""
        self._end(AnswerState.DONE)

    def stop(self) -> None:
        """A person has stopped it. What had already ended stays as it was."""
        self._end(AnswerState.STOPPED)

    def fail(self, message: str) -> None:
        """An error has ended it; the text so far is kept."""
        if not self.has_ended:
            self.error = message
        self._end(AnswerState.FAILED)

    def _end(self, state: AnswerState) -> None:
        if not self.has_ended:
            self.state = state
            self.version += 1


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """An image that was checked: a whole, decodable file of a kind that models take."""

    path: Path  # in Gradio's upload folder
    media_type: str
    width: int  # pixels
    height: int


@dataclass(slots=True)
class Turn:
    """What a person asked, how, and what the columns answered."""

    text: str
    images: tuple[UploadedImage, ...]
    sampling: Sampling
    answers: dict[int, Answer] = field(default_factory=dict)  # by column, 0-based


@dataclass(slots=True)
class Conversation:
    """Turns and the models that the columns hold. The id is a capability: who has it may read."""

    columns: list[str | None] = field(default_factory=lambda: [None] * MAX_COLUMNS)
    num_columns: int = 2
    is_arranged: bool = False  # a person chose models or the number of columns
    turns: list[Turn] = field(default_factory=list)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    created_at: float = field(default_factory=time.time)  # Unix seconds

    def arrange(self, models: list[str]) -> None:
        """Gives the columns these models, and shows as many columns as there are models."""
        models = models[:MAX_COLUMNS]
        self.columns = [*models, *[None] * (MAX_COLUMNS - len(models))]
        self.num_columns = max(2, len(models))

    def continued(self) -> Conversation:
        """A new, empty conversation over the same columns."""
        return Conversation(
            columns=list(self.columns),
            num_columns=self.num_columns,
            is_arranged=self.is_arranged,
        )
