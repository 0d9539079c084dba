"""Lines that a person types, with editing, history and completion; or lines from a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

try:
    import readline
except ImportError:  # not on Windows: lines come without editing
    readline = None  # type: ignore[assignment]  # a module or nothing

_MOST_LINES = 1000


def history_path(environ: Mapping[str, str]) -> Path:
    """Where the lines of earlier chats are kept."""
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "paragone" / "chat_history"


class Lines:
    """Reads what is typed.

    Args:
        prompt: what stands before each line on a terminal.
        history: where lines are kept between chats; None keeps none.
        complete: what a word may become, given the line up to it.
    """

    def __init__(
        self, prompt: str, history: Path | None, complete: Callable[[str, str], Sequence[str]]
    ) -> None:
        self.is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._prompt = prompt if self.is_interactive else ""
        self._history = history if self.is_interactive else None
        self._complete = complete
        if self.is_interactive and readline is not None:
            self._set_up()

    def read(self) -> str:
        """The next line; one that ends with a backslash goes on in the next.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: Ctrl-C.
        """
        line = self._read_one(self._prompt)
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self._read_one("  " * bool(self._prompt))
        return line

    def close(self) -> None:
        """Keeps the history for the next chat."""
        if self._history is None or readline is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            # It is private: made so before anything is in it.
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(self._history)
        except OSError as exc:
            sys.stderr.write(f"the chat's history cannot be kept in {self._history}: {exc}\n")

    def _read_one(self, prompt: str) -> str:
        if self.is_interactive:
            return input(prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    def _set_up(self) -> None:
        readline.set_history_length(_MOST_LINES)
        readline.set_completer_delims(" ")
        readline.set_completer(self._completer)
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
        if self._history is not None and self._history.is_file():
            try:
                readline.read_history_file(self._history)
            except OSError as exc:
                sys.stderr.write(f"the chats' history {self._history} is unreadable: {exc}\n")

    def _completer(self, word: str, state: int) -> str | None:
        before = readline.get_line_buffer()[: readline.get_begidx()]
        found = self._complete(before, word)
        return found[state] if state < len(found) else None


def files_like(word: str) -> Iterator[str]:
    """Files and folders that a path may become."""
    path = Path(word).expanduser()
    folder, start = (path, "") if word.endswith("/") or not word else (path.parent, path.name)
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    head = word[: len(word) - len(start)]
    for entry in found:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            yield head + entry.name + ("/" if entry.is_dir() else "")
