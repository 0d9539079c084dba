"""What the subcommands of `paragone` do; each returns an exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Final

from controller.fleet.control import Request
from controller.fleet.control_client import ControlError, ask, find_fleet, look_at_fleet
from controller.fleet.fleet_file import FleetFileError, load_fleet_file
from controller.fleet.place import Place, PlaceError, ThisMachine
from controller.fleet.probe import ProbeError
from controller.fleet.register import register_external
from controller.fleet.spec import FleetSpec
from controller.fleet.state_dir import (
    AlreadyRunningError,
    StateDir,
    StateDirError,
    state_dir_of,
)
from controller.fleet.status import show_status
from controller.fleet.up import run_fleet

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

_DEFAULT_CONTROLLER: Final = "http://127.0.0.1:21001"
_CONTROLLER_VARIABLE: Final = "PARAGONE_CONTROLLER_URL"
_BY_FLAG: Final = "name with --file"


def perform(arguments: argparse.Namespace) -> int:
    """Does what a parsed command line asks for."""
    try:
        return _ACTIONS[arguments.action](arguments)
    except FleetFileError as exc:
        _complain(str(exc))
        return EXIT_USAGE
    except (ControlError, PlaceError, ProbeError, StateDirError) as exc:
        _complain(str(exc))
        return EXIT_FAILED


def _up(arguments: argparse.Namespace) -> int:
    spec = load_fleet_file(arguments.file)
    state = state_dir_of(arguments.file, os.environ)
    try:
        with state.held(), _place(arguments) as place:
            return _start(arguments, spec, place, state)
    except AlreadyRunningError:
        request = Request(
            command="apply",
            check_memory=not arguments.skip_memory_check,
            wait_for_nodes=arguments.wait_for_nodes,
            place=arguments.on or "",
        )
        _say(ask(state, request, on_line=_say))
        return 0


@contextlib.contextmanager
def _place(arguments: argparse.Namespace) -> Iterator[Place]:
    if arguments.on is None:
        yield ThisMachine()
        return
    if find_spec("ray") is None:
        raise PlaceError(
            f"--on ray needs ray, which {sys.executable} does not have: "
            f"pip install 'paragone[ray]', there and on every node; or leave out --on ray, and "
            f"all runs on this machine"
        )
    # On use: it takes a second, and is an extra.
    from controller.fleet.on_ray.place import on_ray  # noqa: PLC0415

    with on_ray(os.environ) as place:
        yield place


def _start(arguments: argparse.Namespace, spec: FleetSpec, place: Place, state: StateDir) -> int:
    plans = place.plans(spec)
    problems = place.problems(
        spec,
        plans,
        check_memory=not arguments.skip_memory_check,
        wait_for_nodes=arguments.wait_for_nodes,
    )
    if problems:
        _complain(f"{arguments.file} cannot be started:")
        for problem in problems:
            _complain(f"  - {problem}")
        return EXIT_FAILED
    return run_fleet(
        spec,
        plans,
        place=place,
        path=arguments.file,
        state=state,
        wait_for_nodes=arguments.wait_for_nodes,
        output=arguments.output,
    )


def _down(arguments: argparse.Namespace) -> int:
    fleet = find_fleet(arguments.file, os.environ)
    ask(fleet, Request(command="stop", now=arguments.now), on_line=_say)
    _say(f"{fleet.fleet_file} has stopped")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    request = Request(
        command="logs", name=arguments.name, follow=arguments.follow, lines=arguments.lines
    )
    fleet = find_fleet(arguments.file, os.environ, say_which=_BY_FLAG)
    ask(fleet, request, on_line=_say)
    return 0


def _scale(arguments: argparse.Namespace) -> int:
    name, separator, count = arguments.name.partition("=")
    if not (separator and count.isascii() and count.isdigit() and int(count)):
        _complain(f"expected NAME=NUMBER with a number from 1 on, not {arguments.name!r}")
        return EXIT_USAGE
    request = Request(command="scale", name=name, replicas=int(count))
    fleet = find_fleet(arguments.file, os.environ, say_which=_BY_FLAG)
    _say(ask(fleet, request, on_line=_say))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    url, is_our_fleets = _controller(arguments)
    asyncio.run(
        show_status(
            url,
            as_json=arguments.json,
            watch=arguments.watch,
            troubles=_troubles if is_our_fleets else tuple,
        )
    )
    return 0


def _register(arguments: argparse.Namespace) -> int:
    url, _ = _controller(arguments)
    asyncio.run(register_external(url, arguments.address))
    return 0


def _controller(arguments: argparse.Namespace) -> tuple[str, bool]:
    """Which controller is meant, and whether it is that of the one fleet that runs here."""
    named = arguments.controller or os.environ.get(_CONTROLLER_VARIABLE)
    if named:
        return named, False
    look = look_at_fleet(os.environ)
    return (look.controller_url, True) if look else (_DEFAULT_CONTROLLER, False)


def _troubles() -> Sequence[str]:
    look = look_at_fleet(os.environ)
    return look.troubles if look else ()


def _schema(_arguments: argparse.Namespace) -> int:
    _say(json.dumps(FleetSpec.model_json_schema(), indent=2))
    return 0


def _commands(arguments: argparse.Namespace) -> int:
    for plan in ThisMachine().plans(load_fleet_file(arguments.file)):
        _say(plan.shell_command())
    return 0


def _render(arguments: argparse.Namespace) -> int:
    # On use: no other action writes such files.
    from controller.fleet.render import render_fleet  # noqa: PLC0415

    spec = load_fleet_file(arguments.file)
    if arguments.out is not None:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
            with contextlib.chdir(arguments.out):  # what is relative is so to where the files lie
                files = render_fleet(spec, arguments.file, arguments.to)
            for name, text in files.items():
                path = arguments.out / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                _say(str(path))
        except OSError as exc:
            _complain(f"{exc.filename or arguments.out} cannot be written: {exc.strerror}")
            return EXIT_FAILED
        return 0
    files = render_fleet(spec, arguments.file, arguments.to)
    if len(files) == 1:
        _say(next(iter(files.values())).rstrip("\n"))
    else:
        for name, text in files.items():
            _say(f"# ==> {name} <==\n{text}")
    return 0


_ACTIONS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "up": _up,
    "down": _down,
    "logs": _logs,
    "scale": _scale,
    "render": _render,
    "status": _status,
    "register": _register,
    "schema": _schema,
    "commands": _commands,
}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()  # a closed pipe shows here, where it is dealt with


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
