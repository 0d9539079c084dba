"""Where answers are written: a terminal with styles, or a pipe that gets the text alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TextIO

from controller.terminal.markdown import MarkdownStream

_DIM, _RED, _RESET = "\x1b[2m", "\x1b[31m", "\x1b[0m"
# Answers are other people's text: no escape sequence in one may move a cursor or set a title.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """A text without control characters but for tabs and line ends."""
    return _CONTROL.sub("", text)


class Screen:
    """Writes answers to one stream and remarks to another.

    Args:
        out: answers, and what commands print.
        remarks: errors and figures, where ``out`` is no terminal.
        environ: ``NO_COLOR`` and ``TERM`` are looked up in it.
        markdown: whether answers' Markdown is to be shown.
    """

    def __init__(
        self, out: TextIO, remarks: TextIO, environ: Mapping[str, str], *, markdown: bool = True
    ) -> None:
        self._out = out
        self._remarks = remarks
        self.is_terminal = out.isatty()
        self.has_styles = (
            self.is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )
        self._shows_markdown = self.has_styles and markdown
        self._stream: MarkdownStream | None = None
        self._last = "\n"

    def piece(self, text: str) -> None:
        """More of an answer."""
        if self.is_terminal:
            text = harmless(text)
        if not text:
            return
        self._last = text[-1]
        if self._shows_markdown:
            self._stream = self._stream or MarkdownStream()
            text = self._stream.feed(text)
        self._write(text)

    def end(self) -> None:
        """The answer is over, whole or not: the next thing begins on a line of its own."""
        rest = self._stream.finish() if self._stream else ""
        self._stream = None
        self._write(rest + ("" if self._last == "\n" else "\n"))
        self._last = "\n"

    def say(self, text: str) -> None:
        """A line that a command prints."""
        self._write((harmless(text) if self.is_terminal else text) + "\n")

    def figures(self, text: str) -> None:
        """What an answer cost; on a terminal alone, so that a pipe has answers and nothing else."""
        if self.is_terminal:
            self._write(f"{_DIM}{text}{_RESET}\n" if self.has_styles else f"({text})\n")

    def remark(self, text: str) -> None:
        """A note beside the answers."""
        self._complain(text, _DIM)

    def alarm(self, text: str) -> None:
        """What went wrong, and the way out."""
        self._complain(text, _RED)

    def _complain(self, text: str, style: str) -> None:
        self._out.flush()
        plain = harmless(text)
        styled = self.has_styles and self._remarks.isatty()
        self._remarks.write(f"{style}{plain}{_RESET}\n" if styled else f"{plain}\n")
        self._remarks.flush()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()  # each piece is to be seen as it comes
