"""``paragone compare``: one question to several models at once, and their answers side by side."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Final

from pydantic import Field

from controller.protocol.chat import FinishReason, Metrics, Usage
from controller.protocol.message import Message
from controller.terminal.columns import side_by_side, wrapped
from controller.terminal.conversation import Conversation
from controller.terminal.images import image_uri
from controller.terminal.reading import Answer, Reading
from controller.terminal.screen import Screen, harmless
from controller.terminal.settings import CompareSettings
from controller.terminal.source import FAILURES, AnswerSource

_REDRAW_SECONDS: Final = 0.1
# Narrower columns are hard to read: then answers stand below each other.
_LEAST_CELLS: Final = 24
_UP_AND_CLEAR: Final = "\x1b[{rows}A\x1b[J"


class ModelAnswer(Message):
    """What ``--json`` prints of one model; ``error`` is set where there is no whole answer."""

    model: str
    answer: str
    finish_reason: FinishReason | None = None
    seconds: float | None = None
    usage: Usage | None = None
    metrics: Metrics | None = None
    error: str | None = None
    code: str | None = Field(default=None, description="the error's")


class Comparison(Message):
    """What ``--json`` prints."""

    query: str
    answers: list[ModelAnswer]


class _Column:
    """One model's answer as it comes in."""

    def __init__(self, model: str, on_change: Callable[[], None]) -> None:
        self.model = model
        self.answer: Answer | None = None
        self.error: str | None = None
        self.code: str | None = None
        self._on_change = on_change
        self._reading = Reading(lambda _text: on_change())

    async def ask(self, source: AnswerSource, talk: Conversation, asked: CompareSettings) -> None:
        """Has it answer; a failure is this column's own."""
        try:
            stream = source.answer(talk.request(self.model, asked))
            self.answer = await self._reading.read(stream)
        except FAILURES as exc:
            self.error, self.code = exc.message, exc.code
        self._on_change()

    @property
    def text(self) -> str:
        """The answer so far, then what ended it."""
        text = harmless(self._reading.text)
        if self.error is not None:
            return f"{text}\n[{self.error}]".lstrip()
        return text

    @property
    def figures(self) -> str:
        """What it cost; empty while it runs."""
        return self.answer.figures if self.answer else ""

    def told(self) -> ModelAnswer:
        """The column for programs."""
        answer = self.answer
        return ModelAnswer(
            model=self.model,
            answer=self._reading.text,
            finish_reason=answer and answer.finish_reason,
            seconds=round(answer.seconds, 4) if answer else None,
            usage=answer and answer.usage,
            metrics=answer and answer.metrics,
            error=self.error,
            code=self.code,
        )


async def compare(
    source: AnswerSource, models: Sequence[str], query: str, settings: CompareSettings
) -> int:
    """Asks all of them at once and prints the answers; 0 if all have answered, else 1.

    Raises:
        BadImageError: an image cannot be read.
    """
    talk = Conversation(settings.system)
    for each in settings.image_file:
        talk.attach(await image_uri(each))
    talk.ask(query)
    changed = asyncio.Event()
    columns = [_Column(model, changed.set) for model in models]
    live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not settings.as_json
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(each.ask(source, talk, settings)) for each in columns]
        if live:
            tasks.create_task(_draw(columns, changed, asking))
    if settings.as_json:
        told = Comparison(query=query, answers=[each.told() for each in columns])
        sys.stdout.write(told.model_dump_json(indent=2, exclude_none=True) + "\n")
    elif not live:
        _print_below_each_other(columns)
    return 1 if any(each.error is not None for each in columns) else 0


async def _draw(
    columns: Sequence[_Column], changed: asyncio.Event, asking: Sequence[asyncio.Task[None]]
) -> None:
    """Draws the answers again as they grow, and in full once all have ended."""
    drawn = 0
    while True:
        is_over = all(task.done() for task in asking)
        size = shutil.get_terminal_size()
        lines = _lines(columns, size.columns, None if is_over else max(1, size.lines - 4))
        if not is_over:
            lines = lines[-(size.lines - 1) :]
        erase = _UP_AND_CLEAR.format(rows=drawn) if drawn else ""
        sys.stdout.write(erase + "\n".join(lines) + "\n")
        sys.stdout.flush()
        drawn = len(lines)
        if is_over:
            return
        changed.clear()
        await changed.wait()
        await asyncio.sleep(_REDRAW_SECONDS)


def _lines(columns: Sequence[_Column], cells: int, rows: int | None) -> list[str]:
    if cells // len(columns) < _LEAST_CELLS:
        lines = []
        for each in columns:
            lines += [*wrapped(each.model, cells), *wrapped(each.text, cells)]
            lines += [*wrapped(each.figures, cells), ""]
        return lines
    return [
        *side_by_side([each.model for each in columns], cells),
        *side_by_side(["─" * len(each.model) for each in columns], cells),
        *side_by_side([each.text for each in columns], cells, rows=rows),
        *side_by_side([each.figures for each in columns], cells),
    ]


def _print_below_each_other(columns: Sequence[_Column]) -> None:
    screen = Screen(sys.stdout, sys.stderr, os.environ, markdown=False)
    for index, each in enumerate(columns):
        screen.say(("\n" if index else "") + f"{each.model}:")
        screen.say(each.text)
        if each.figures:
            screen.say(f"({each.figures})")
