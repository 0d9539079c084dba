"""Ends an answer at a stop string, and never shows any part of it."""

from __future__ import annotations


class StopStrings:
    """Passes text on, up to the first stop string.

    Text that may yet turn out to be the beginning of a stop string is held back. A stop string
    of whitespace alone is ignored: LLaVA's own clients send ``" "`` and expect whole answers.
    The result does not depend on how the text is cut into pieces: the string that is complete
    first ends the answer, and the answer is cut where it began.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop.strip())
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The text that may be shown now. Nothing may be pushed after a match."""
        if self.matched is not None:
            raise ValueError("the answer has already ended")
        buffer = self._held + text
        cut = self._first_match(buffer)
        if cut is not None:
            self._held = ""
            return buffer[:cut]
        held = self._possible_beginning(buffer)
        shown, self._held = buffer[: len(buffer) - held], buffer[len(buffer) - held :]
        return shown

    def flush(self) -> str:
        """What was held back, once it is known that no more text comes."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, buffer: str) -> int | None:
        """Where the stop string that is complete first begins."""
        best: tuple[int, int] | None = None  # (end, start)
        for stop in self._stops:
            start = buffer.find(stop)
            if start >= 0 and (best is None or (start + len(stop), start) < best):
                best, self.matched = (start + len(stop), start), stop
        return None if best is None else best[1]

    def _possible_beginning(self, buffer: str) -> int:
        """How many characters at the end could begin a stop string."""
        longest = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(buffer)), longest, -1):
                if buffer.endswith(stop[:size]):
                    longest = size
                    break
        return longest
