"""Command lines that say which word was probably meant, in one line. Imports next to nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

_EXIT_USAGE: Final = 2
# How argparse begins what it says of words that it has no place for.
_UNRECOGNIZED: Final = "unrecognized arguments: "


class CommandLine(argparse.ArgumentParser):
    """argparse's parser; a misspelt command, flag or choice is refused with the closest known one.

    A complaint is the cause alone: the usage of a program with sixty flags would hide it.

    Args:
        examples: command lines that end its help.
        options: argparse's own.
    """

    def __init__(
        self,
        *,
        examples: Sequence[str] = (),
        **options: Any,  # noqa: ANN401 - argparse names them
    ) -> None:
        super().__init__(**options)
        self._examples = tuple(examples)

    def format_help(self) -> str:
        """The help, and examples below it."""
        if not self._examples:
            return super().format_help()
        return super().format_help() + "\nexamples:\n" + "".join(f"  {e}\n" for e in self._examples)

    def error(self, message: str) -> NoReturn:
        """Ends with status 2 and one line, and another on where to look."""
        if message.startswith(_UNRECOGNIZED):
            message += closest(_flags(message.removeprefix(_UNRECOGNIZED).split()), _options(self))
        self.exit(
            _EXIT_USAGE, f"{self.prog}: error: {message}\n`{self.prog} --help` says what there is\n"
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - argparse's
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = closest([str(value)], known)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no other name
            raise argparse.ArgumentError(None, f"there is no command {value!r}{hint}")
        raise argparse.ArgumentError(action, f"expected {', '.join(known)}, not {value!r}{hint}")


def closest(words: Iterable[str], known: Iterable[str]) -> str:
    """``; did you mean 'up'?`` of the first word that is like a known one; empty if none is."""
    import difflib  # noqa: PLC0415 - on use: a right command line does without

    known = list(known)
    for word in words:
        if found := difflib.get_close_matches(word, known, n=1):
            return f"; did you mean {found[0]!r}?"
    return ""


def _flags(words: Iterable[str]) -> Iterator[str]:
    return (word.partition("=")[0] for word in words if word.startswith("-"))


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags of a parser, and of the commands below it."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other list of them
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for child in action.choices.values():
                yield from _options(child)
