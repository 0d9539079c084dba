"""What `paragone` can be told, made into a parser. Imports next to nothing, and starts nothing."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias

from controller.chassis.command_line import CommandLine

_Commands: TypeAlias = "argparse._SubParsersAction[CommandLine]"  # noqa: SLF001 - it has no other name

_INSPECT: Final = "say what a checkpoint is, and whether it fits on this machine"

# Programs that turn checkpoints into others: modules of worker.tools, by what they do.
TOOLS: Final = {
    "convert": "write an original LLaVA checkpoint as a Hugging Face checkpoint",
    "merge-lora": "write an adapter and its base as one whole checkpoint",
    "extract-projector": "write the projector of an original LLaVA checkpoint alone",
    "apply-delta": "put a base and delta weights together",
    "make-delta": "write what a checkpoint differs by from its base",
}

# Programs for people over a fleet: modules of controller.terminal.
CLIENTS: Final = {
    "chat": "chat with a model: of a fleet, or with --model-path in this process",
    "compare": "ask several models of a fleet the same, answers side by side",
}

# Our processes: what people call them, and the package that runs.
PROCESSES: Final = {
    "controller": "controller",
    "worker": "worker",
    "web": "webui",
}

_WHICH_FLEET: Final = "the fleet file; may be left out where one fleet runs"

# What `paragone fleet render` writes for; modules of controller.fleet.render.
_TARGETS: Final = ("compose", "kubernetes", "slurm", "systemd")


def build_parser() -> CommandLine:
    """The command line, without what the processes take themselves."""
    parser = CommandLine(
        prog="paragone",
        description="Serve vision-language checkpoints side by side.",
        epilog="`paragone COMMAND --help` says more of each. Exit status: 0 done, 1 failed, 2 the "
        "command line or the fleet file is wrong.",
    )
    parser.add_argument("--version", action="version", version=f"paragone {version('paragone')}")
    parser.set_defaults(action=None, shown=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_up(commands)
    _add_running_fleets(commands)
    _add_controllers(commands)
    _add_fleet_files(commands)

    completion = _add(
        commands,
        "completion",
        'print what a shell completes by: eval "$(paragone completion bash)"',
    )
    completion.add_argument("shell", choices=["bash", "zsh"], help="the shell")

    # Listed for --help alone: they take their own flags, --help among them.
    packages = {name: f"python -m {package}, with its flags" for name, package in PROCESSES.items()}
    for name, about in {**CLIENTS, **packages, "inspect": _INSPECT, **TOOLS}.items():
        commands.add_parser(name, add_help=False, help=about)
    return parser


def _add(commands: _Commands, name: str, about: str, *examples: str) -> argparse.ArgumentParser:
    """A command; what it does is `_ACTIONS`' of its name, in controller.fleet.actions."""
    parser = commands.add_parser(name, help=about, description=about, examples=examples)
    parser.set_defaults(action=name)
    return parser


def _add_up(commands: _Commands) -> None:
    up = _add(
        commands,
        "up",
        "start a fleet, restart what crashes, stop all on Ctrl-C; again: apply its file",
        "paragone up my-fleet.yaml           # again, elsewhere: apply what changed in the file",
        "paragone up my-fleet.yaml --on ray  # workers on the Ray cluster",
    )
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


def _add_running_fleets(commands: _Commands) -> None:
    """What is done with a fleet that runs."""
    down = _add(
        commands,
        "down",
        "stop a running fleet, and wait until everything has stopped",
        "paragone down                  # the one fleet that runs",
        "paragone down my-fleet.yaml",
    )
    down.add_argument("file", type=Path, metavar="FILE", nargs="?", help=_WHICH_FLEET)
    down.add_argument("--now", action="store_true", help="kill, without a grace")

    logs = _add(
        commands,
        "logs",
        "print the last lines of a running fleet's process, of all without a NAME",
        "paragone logs                  # of all processes",
        "paragone logs demo-llava -f    # and what it writes from now on",
    )
    logs.add_argument("name", metavar="NAME", nargs="?", default="", help="the process")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what it writes")
    logs.add_argument("-n", "--lines", type=_count, default=100, help="past lines (default: 100)")
    logs.add_argument("--file", type=Path, metavar="FILE", help=_WHICH_FLEET)

    scale = _add(
        commands,
        "scale",
        "run a worker of a running fleet several times, until its file is applied again",
        "paragone scale demo-llava-zh=2",
    )
    scale.add_argument("name", metavar="NAME=NUMBER", help="the worker, and how many of it")
    scale.add_argument("--file", type=Path, metavar="FILE", help=_WHICH_FLEET)


def _add_controllers(commands: _Commands) -> None:
    """What a controller is asked, wherever it runs."""
    status = _add(
        commands,
        "status",
        "show a controller's workers, their state and their load",
        "paragone status",
        "paragone status --watch",
        "paragone status --controller http://gpu-node:21001 --json",
    )
    _add_controller(status)
    status.add_argument("--json", action="store_true", help="print what the controller answered")
    status.add_argument("--watch", action="store_true", help="look again every second")

    register = _add(
        commands,
        "register",
        "add a server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, Ollama",
        "paragone register http://gpu-node:8000",
        "PARAGONE_EXTERNAL_API_KEY=KEY paragone register http://gpu-node:8001",
    )
    register.add_argument(
        "address", metavar="URL", help="the server: what stands before /v1 in its addresses"
    )
    register.add_argument(
        "--engine", choices=["openai"], default="openai", help="the API that it speaks"
    )
    _add_controller(register)


def _add_fleet_files(commands: _Commands) -> None:
    """What is done with a fleet file alone."""
    about = "look at fleet files"
    fleet = commands.add_parser("fleet", help=about, description=about)
    fleet.set_defaults(shown=fleet)
    files = fleet.add_subparsers(title="commands", metavar="COMMAND")
    _add(
        files,
        "schema",
        "print the fleet file's JSON Schema, every key explained",
        "paragone fleet schema > fleet.schema.json",
    )
    plain = _add(
        files,
        "commands",
        "print the plain command of each process, for those who launch by hand",
        "paragone fleet commands configs/demo.yaml",
    )
    _add_file(plain)
    render = _add(
        files,
        "render",
        "print the fleet for something else that starts it",
        "paragone fleet render my-fleet.yaml --to compose > docker-compose.yml",
        "paragone fleet render my-fleet.yaml --to systemd --out units",
    )
    _add_file(render)
    render.add_argument("--to", choices=_TARGETS, required=True, help="what starts it")
    render.add_argument("--out", type=Path, metavar="DIR", help="write the files to this folder")


def _add_controller(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--controller",
        metavar="URL",
        help="the controller's address (default: $PARAGONE_CONTROLLER_URL, else that of the fleet "
        "that runs here, else http://127.0.0.1:21001)",
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the fleet file")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, not {text!r}")
    return int(text)
