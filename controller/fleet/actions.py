"""What the subcommands of `paragone` do; each returns an exit status."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from controller.fleet.commands import ProcessPlan, plan_fleet
from controller.fleet.cores import usable_cores
from controller.fleet.preflight import find_problems
from controller.fleet.probe import ProbeError
from controller.fleet.register import register_external
from controller.fleet.spec import FleetFileError, FleetSpec, load_fleet_file
from controller.fleet.status import show_status
from controller.fleet.up import run_fleet

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def perform(arguments: argparse.Namespace) -> int:
    """Does what a parsed command line asks for."""
    try:
        return _ACTIONS[arguments.action](arguments)
    except FleetFileError as exc:
        _complain(str(exc))
        return EXIT_USAGE
    except ProbeError as exc:
        _complain(str(exc))
        return EXIT_FAILED


def _up(arguments: argparse.Namespace) -> int:
    spec, plans = _load(arguments.file)
    problems = find_problems(spec, plans)
    if problems:
        _complain(f"{arguments.file} cannot be started:")
        for problem in problems:
            _complain(f"  - {problem}")
        return EXIT_FAILED
    return run_fleet(spec, plans, title=str(arguments.file))


def _status(arguments: argparse.Namespace) -> int:
    asyncio.run(show_status(arguments.controller, as_json=arguments.json, watch=arguments.watch))
    return 0


def _register(arguments: argparse.Namespace) -> int:
    asyncio.run(register_external(arguments.controller, arguments.address))
    return 0


def _schema(_arguments: argparse.Namespace) -> int:
    _say(json.dumps(FleetSpec.model_json_schema(), indent=2))
    return 0


def _commands(arguments: argparse.Namespace) -> int:
    for plan in _load(arguments.file)[1]:
        _say(plan.shell_command())
    return 0


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "up": _up,
    "status": _status,
    "register": _register,
    "schema": _schema,
    "commands": _commands,
}


def _load(path: Path) -> tuple[FleetSpec, list[ProcessPlan]]:
    spec = load_fleet_file(path)
    return spec, plan_fleet(spec, cores=usable_cores())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # a closed pipe shows here, where it is dealt with


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
