"""The `paragone` command. It starts the other packages as ``python -m`` and never imports them.

Exit statuses: 0 done (also when a fleet was asked to stop), 1 it failed, 2 the command line or the
fleet file is wrong.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Final, NoReturn

from controller.cli_parser import CLIENTS, PROCESSES, TOOLS, build_parser

_EXIT_USAGE: Final = 2
_CONTROLLER_VARIABLE: Final = "PARAGONE_CONTROLLER_URL"

# What is run as ``python -m``: the module, the extra that it needs, and a package by which to tell.
_MODULES: Final = {
    "controller": (PROCESSES["controller"], None, "fastapi"),
    "worker": (PROCESSES["worker"], "worker", "torch"),
    "web": (PROCESSES["web"], "webui", "gradio"),
    "inspect": ("worker.inspect", "worker", "torch"),
    "chat": ("worker.chat", "worker", "torch"),  # with a checkpoint of its own
    **{tool: (f"worker.tools.{tool.replace('-', '_')}", "worker", "torch") for tool in TOOLS},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:  # as git and docker have it
        words = [*words[1:], "--help"]
    # Before argparse, so that every flag that follows, --help included, is the process's own.
    if words and words[0] in CLIENTS and not _names_a_checkpoint(words):
        # On use, as below.
        from controller.terminal import programs  # noqa: PLC0415

        _know_the_fleet()
        return _until_the_reader_leaves(lambda: programs.run(words[0], words[1:]))
    if words and words[0] in _MODULES:
        _become(words[0], words[1:])
    parser = build_parser()
    arguments = parser.parse_args(words)
    if arguments.action is None:
        arguments.shown.print_help(sys.stderr)
        return _EXIT_USAGE
    if arguments.action == "completion":
        # On use, as below.
        from controller.fleet.completion import completion_script  # noqa: PLC0415

        script = completion_script(parser, arguments.shell)
        return _until_the_reader_leaves(lambda: _print(script))
    # On use, so that --help, --version and wrong flags answer at once.
    from controller.fleet import actions  # noqa: PLC0415

    return _until_the_reader_leaves(lambda: actions.perform(arguments))


def _until_the_reader_leaves(work: Callable[[], int]) -> int:
    """The exit status of what is done, also where it is interrupted or nobody reads on."""
    try:
        return work()
    except KeyboardInterrupt:
        return 130  # as shells report it
    except BrokenPipeError:
        # The reader (`| head`) has enough. Python's own flush at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _print(text: str) -> int:
    print(text, end="", flush=True)  # a closed pipe shows here, where it is dealt with
    return 0


def _know_the_fleet() -> None:
    """Which controller is asked, where neither the environment nor, later, a flag says it."""
    # On use, as above.
    from controller.fleet.control_client import look_at_fleet  # noqa: PLC0415

    if not os.environ.get(_CONTROLLER_VARIABLE) and (look := look_at_fleet(os.environ)):
        os.environ[_CONTROLLER_VARIABLE] = look.controller_url


def _names_a_checkpoint(words: Sequence[str]) -> bool:
    """Whether a chat is to load its own; flags may be abbreviated."""
    return any(re.match(r"--model-p(a(th?)?)?(=|$)", word) for word in words)


def _become(name: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by ``python -m``, so that signals reach the right one."""
    package, extra, needs = _MODULES[name]
    if find_spec(needs) is None:
        wanted = f"paragone[{extra}]" if extra else "paragone"
        sys.exit(
            f"`paragone {name}` needs {needs}, which {sys.executable} does not have: "
            f"pip install '{wanted}'"
        )
    # -P: a folder `worker` in the current directory is not ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", package, *arguments])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
