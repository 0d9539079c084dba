"""The `paragone` command. It starts the other packages as ``python -m`` and never imports them.

Exit statuses: 0 done (also when a fleet was asked to stop), 1 it failed, 2 the command line or the
fleet file is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

_DEFAULT_CONTROLLER: Final = "http://127.0.0.1:21001"
_CONTROLLER_VARIABLE: Final = "PARAGONE_CONTROLLER_URL"

_INSPECT: Final = "say what a checkpoint is, and whether it fits on this machine"

# Programs that turn checkpoints into others: modules of worker.tools, by what they do.
_TOOLS: Final = {
    "convert": "write an original LLaVA checkpoint as a Hugging Face checkpoint",
    "merge-lora": "write an adapter and its base as one whole checkpoint",
    "extract-projector": "write the projector of an original LLaVA checkpoint alone",
    "apply-delta": "put a base and delta weights together",
    "make-delta": "write what a checkpoint differs by from its base",
}

# Programs for people over a fleet: modules of controller.terminal.
_CLIENTS: Final = {
    "chat": "chat with a model: of a fleet, or with --model-path in this process",
    "compare": "ask several models of a fleet the same, answers side by side",
}

_WHICH_FLEET: Final = "the fleet file; may be left out where one fleet runs"

# What `paragone fleet render` writes for; modules of controller.fleet.render.
_TARGETS: Final = ("compose", "kubernetes", "slurm", "systemd")

# Our processes: the package that runs, the extra that it needs, and a package by which to tell.
_PROCESSES: Final = {
    "controller": ("controller", None, "fastapi"),
    "worker": ("worker", "worker", "torch"),
    "web": ("webui", "webui", "gradio"),
    "inspect": ("worker.inspect", "worker", "torch"),
    "chat": ("worker.chat", "worker", "torch"),  # with a checkpoint of its own
    **{tool: (f"worker.tools.{tool.replace('-', '_')}", "worker", "torch") for tool in _TOOLS},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Before argparse, so that every flag that follows, --help included, is the process's own.
    if words and words[0] in _CLIENTS and not _names_a_checkpoint(words):
        # On use, as below.
        from controller.terminal import programs  # noqa: PLC0415

        return _until_the_reader_leaves(lambda: programs.run(words[0], words[1:]))
    if words and words[0] in _PROCESSES:
        _become(words[0], words[1:])
    parser = build_parser()
    arguments = parser.parse_args(words)
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


def build_parser() -> argparse.ArgumentParser:
    """The command line, without what the processes take themselves."""
    parser = argparse.ArgumentParser(
        prog="paragone",
        description="Serve vision-language checkpoints side by side.",
        epilog="Exit status: 0 done, 1 failed, 2 the command line or the fleet file is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"paragone {version('paragone')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    about_up = "start a fleet, restart what crashes, stop all on Ctrl-C; again: apply its file"
    up = commands.add_parser("up", help=about_up, description=about_up)
    _add_file(up)
    up.add_argument(
        "--output",
        choices=["auto", "plain", "json"],
        default="auto",
        help="auto: lines and a live board on a terminal, JSON lines elsewhere (default)",
    )
    up.add_argument(
        "--skip-memory-check", action="store_true", help="start what may not fit into memory"
    )
    up.add_argument(
        "--on",
        choices=["ray"],
        help="ray: have workers placed, restarted and moved by the Ray cluster that this machine "
        "is a node of ($RAY_ADDRESS: of which); by default all run on this machine",
    )
    up.add_argument(
        "--wait-for-nodes",
        action="store_true",
        help="with --on ray: also start what no node could take yet, as where nodes are added",
    )
    up.set_defaults(action="up")

    _add_running_fleets(commands)

    about_status = "show a controller's workers, their state and their load"
    status = commands.add_parser("status", help=about_status, description=about_status)
    _add_controller(status)
    status.add_argument("--json", action="store_true", help="print what the controller answered")
    status.add_argument("--watch", action="store_true", help="look again every second")
    status.set_defaults(action="status")

    about_register = "add a server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, Ollama"
    register = commands.add_parser("register", help=about_register, description=about_register)
    register.add_argument(
        "address", metavar="URL", help="the server: what stands before /v1 in its addresses"
    )
    register.add_argument(
        "--engine", choices=["openai"], default="openai", help="the API that it speaks"
    )
    _add_controller(register)
    register.set_defaults(action="register")

    fleet = commands.add_parser("fleet", help="look at fleet files").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    fleet.add_parser("schema", help="print the fleet file's JSON Schema").set_defaults(
        action="schema"
    )
    plain = fleet.add_parser("commands", help="print the plain command of each process")
    _add_file(plain)
    plain.set_defaults(action="commands")

    render = fleet.add_parser("render", help="print the fleet for something else that starts it")
    _add_file(render)
    render.add_argument("--to", choices=_TARGETS, required=True, help="what starts it")
    render.add_argument("--out", type=Path, metavar="DIR", help="write the files to this folder")
    render.set_defaults(action="render")

    about_completion = 'print what a shell completes by: eval "$(paragone completion bash)"'
    completion = commands.add_parser(
        "completion", help=about_completion, description=about_completion
    )
    completion.add_argument("shell", choices=["bash", "zsh"], help="the shell")
    completion.set_defaults(action="completion")

    for name, about in _CLIENTS.items():
        commands.add_parser(name, add_help=False, help=about)
    for name, (package, _extra, _needs) in _PROCESSES.items():
        if name in _CLIENTS:
            continue
        # Listed for --help alone: `main` has dealt with them.
        plain_about = f"python -m {package}, with its flags"
        about = {"inspect": _INSPECT, **_TOOLS}.get(name, plain_about)
        commands.add_parser(name, add_help=False, help=about)
    return parser


def _add_running_fleets(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What is done with a fleet that runs."""
    about_down = "stop a running fleet, and wait until everything has stopped"
    down = commands.add_parser("down", help=about_down, description=about_down)
    down.add_argument("file", type=Path, metavar="FILE", nargs="?", help=_WHICH_FLEET)
    down.add_argument("--now", action="store_true", help="kill, without a grace")
    down.set_defaults(action="down")

    about_logs = "print the last lines of a running fleet's process, of all without a NAME"
    logs = commands.add_parser("logs", help=about_logs, description=about_logs)
    logs.add_argument("name", metavar="NAME", nargs="?", default="", help="the process")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what it writes")
    logs.add_argument("-n", "--lines", type=int, default=100, help="past lines (default: 100)")
    logs.add_argument("--file", type=Path, metavar="FILE", help=_WHICH_FLEET)
    logs.set_defaults(action="logs")

    about_scale = "run a worker of a running fleet several times, until its file is applied again"
    scale = commands.add_parser("scale", help=about_scale, description=about_scale)
    scale.add_argument("name", metavar="NAME=NUMBER", help="the worker, and how many of it")
    scale.add_argument("--file", type=Path, metavar="FILE", help=_WHICH_FLEET)
    scale.set_defaults(action="scale")


def _add_controller(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--controller",
        metavar="URL",
        default=os.environ.get(_CONTROLLER_VARIABLE, _DEFAULT_CONTROLLER),
        help=f"the controller's address (default: ${_CONTROLLER_VARIABLE}, or else "
        f"{_DEFAULT_CONTROLLER})",
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the fleet file")


def _names_a_checkpoint(words: Sequence[str]) -> bool:
    """Whether a chat is to load its own; flags may be abbreviated."""
    return any(re.match(r"--model-p(a(th?)?)?(=|$)", word) for word in words)


def _become(name: str, arguments: Sequence[str]) -> NoReturn:
    """Replaces this process by ``python -m``, so that signals reach the right one."""
    package, extra, needs = _PROCESSES[name]
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
