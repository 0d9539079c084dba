"""Markdown as a terminal shows it, while it comes in: nothing that was written is written anew.

What a language model's answers have: headings, lists, quotes, code, bold and italics. Everything
else stays as it is.
"""

from __future__ import annotations

import re

_BOLD, _NOT_BOLD = "\x1b[1m", "\x1b[22m"
_ITALIC, _NOT_ITALIC = "\x1b[3m", "\x1b[23m"
_CODE, _NOT_CODE = "\x1b[36m", "\x1b[39m"
_UNDERLINED, _NOT_UNDERLINED = "\x1b[4m", "\x1b[24m"

# How a line may begin that means more than its text; and what may still become one.
_BLOCK = re.compile(
    r"(?P<indent>[ \t]*)(?:(?P<fence>```|~~~)|(?P<heading>#{1,6})[ ]|(?P<bullet>[-*+])[ ]"
    r"|(?P<quote>>)[ ]?)"
)
_MAYBE_BLOCK = re.compile(r"[ \t]*(?:#{0,6}|[-*+]?|`{0,2}|~{0,2}|>?)")


class MarkdownStream:
    """Turns pieces of Markdown into what a terminal shows of them.

    A piece may end anywhere; what is not clear yet is held until more comes. Styles end with their
    line at the latest.
    """

    def __init__(self) -> None:
        self._held = ""
        self._at_start = True  # of a line
        self._previous = ""  # character of this line
        self._in_fence = False
        self._is_fence_line = False
        self._open: dict[str, str] = {}  # marker, what ends it

    def feed(self, piece: str) -> str:
        """What can be shown now."""
        text, self._held = self._held + piece, ""
        shown = ""
        while text:
            if self._at_start:
                if "\n" not in text and _MAYBE_BLOCK.fullmatch(text):
                    break
                begin, text = self._begin_line(text)
                shown += begin
                self._at_start = False
                continue
            if text[0] == "*" and len(text) < 3 and "\n" not in text:
                break  # it may be one or two, and what follows says whether it opens
            one, text = self._next(text)
            shown += one
        self._held = text
        return shown

    def finish(self) -> str:
        """What was held, and the end of every style."""
        text, self._held = self._held, ""
        shown = ""
        if self._at_start:
            shown, text = self._begin_line(text)
        while text:
            one, text = self._next(text)
            shown += one
        return shown + self._end_line()

    def _begin_line(self, text: str) -> tuple[str, str]:
        """The beginning of a line as it is shown, and the rest."""
        match = _BLOCK.match(text)
        if self._in_fence and (match is None or not match["fence"]):
            return _CODE, text
        if match is None:
            return "", text
        rest = text[match.end() :]
        if match["fence"]:
            self._in_fence = not self._in_fence
            self._is_fence_line = True
            return _CODE, match[0] + rest
        if match["heading"]:
            self._open["#"] = _NOT_BOLD + _NOT_UNDERLINED
            return _BOLD + _UNDERLINED, rest
        return match["indent"] + ("│ " if match["quote"] else "• "), rest

    def _next(self, text: str) -> tuple[str, str]:
        """The next character as it is shown, or the switch that a marker is; and the rest."""
        if text[0] == "\n":
            return self._end_line() + "\n", text[1:]
        if self._in_fence or self._is_fence_line:
            return text[0], text[1:]
        if text[0] == "`":
            return self._switch("`", _CODE, _NOT_CODE), text[1:]
        if text[0] == "*" and "`" not in self._open:
            marker = "**" if text.startswith("**") else "*"
            if marker in self._open or self._opens(text[len(marker) :]):
                on, off = (_BOLD, _NOT_BOLD) if marker == "**" else (_ITALIC, _NOT_ITALIC)
                return self._switch(marker, on, off), text[len(marker) :]
            self._previous = "*"
            return marker, text[len(marker) :]
        self._previous = text[0]
        return text[0], text[1:]

    def _opens(self, after: str) -> bool:
        """Whether a marker between the previous character and ``after`` begins a style."""
        # Not the one in 2*3 or 5**2.
        is_inside_word = self._previous.isascii() and self._previous.isalnum()
        return bool(after) and not (after[0].isspace() or after[0] == "*" or is_inside_word)

    def _switch(self, marker: str, on: str, off: str) -> str:
        self._previous = ""
        if marker in self._open:
            return self._open.pop(marker)
        self._open[marker] = off
        return on

    def _end_line(self) -> str:
        ends = "".join(self._open.values())
        if self._in_fence or self._is_fence_line:
            ends += _NOT_CODE
        self._open, self._at_start = {}, True
        self._previous, self._is_fence_line = "", False
        return ends
