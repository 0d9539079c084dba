"""Asks a running supervisor over its control socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.fleet.control import Reply, Request
from controller.fleet.state_dir import StateDir, StateDirError, running_fleets, state_dir_of

# Who only looks goes on without a supervisor that stands still.
_LOOK_SECONDS: Final = 2.0


class ControlError(Exception):
    """The supervisor refused, or none could be asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a running fleet says of itself.

    Args:
        controller_url: where its controller is reached.
        troubles: a line for each process that does not run, and why.
    """

    controller_url: str
    troubles: tuple[str, ...]


def look_at_fleet(environ: Mapping[str, str]) -> Look | None:
    """What the only fleet that this user runs says; None where there is none, or several."""
    try:
        running = running_fleets(environ)
        if len(running) != 1:
            return None
        lines: list[str] = []
        url = ask(running[0], Request(command="look"), on_line=lines.append, seconds=_LOOK_SECONDS)
    # It is starting or stopping, or of before an upgrade: as if there were none.
    except (ControlError, StateDirError, TimeoutError):
        return None
    return Look(url, tuple(lines)) if url else None


def find_fleet(
    fleet_file: Path | None, environ: Mapping[str, str], *, say_which: str = "name"
) -> StateDir:
    """The running fleet of a file; without a file, the only one that this user runs.

    Args:
        fleet_file: the file.
        environ: where fleets are found.
        say_which: how the command line names one of several.

    Raises:
        ControlError: there is none, or there are several.
        StateDirError: the folder of running fleets cannot be trusted.
    """
    if fleet_file is not None:
        found = state_dir_of(fleet_file, environ)
        if not found.is_held():
            raise ControlError(
                f"no fleet of {fleet_file} runs here; start it with `paragone up {fleet_file}`"
            )
        return found
    running = running_fleets(environ)
    if not running:
        raise ControlError("no fleet runs here; start one with `paragone up FILE`")
    if len(running) > 1:
        files = ", ".join(str(fleet.fleet_file) for fleet in running)
        raise ControlError(f"several fleets run here; {say_which} one of {files}")
    return running[0]


def ask(
    fleet: StateDir,
    request: Request,
    *,
    on_line: Callable[[str], None],
    seconds: float | None = None,
) -> str:
    """Asks, and waits for the end of the answer.

    Args:
        fleet: whom.
        request: what.
        on_line: is given each line that comes before the end.
        seconds: how long it may be silent; None for as long as it takes.

    Returns:
        The answer's last text; empty where the supervisor's end is its own, as of a stop.

    Raises:
        ControlError: it refused, does not answer, or ended first.
        TimeoutError: it was silent for longer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(fleet.socket))
            # What is left at its default is left out: supervisors of before may not know its name.
            connection.sendall(request.model_dump_json(exclude_defaults=True).encode() + b"\n")
        except OSError as exc:
            raise ControlError(
                f"the supervisor of {fleet.fleet_file} does not answer ({exc.strerror}): it is "
                f"starting or stopping; try again in a moment"
            ) from exc
        # Reset: it ended and had not read the request.
        with connection.makefile("rb") as answer, contextlib.suppress(ConnectionResetError):
            for line in answer:
                if not line.endswith(b"\n"):  # it was killed in the middle
                    break
                reply = Reply.model_validate_json(line)
                if reply.kind == "error":
                    raise ControlError(reply.text)
                if reply.kind == "done":
                    return reply.text
                on_line(reply.text)
    if request.command == "stop" or request.follow:
        return ""
    raise ControlError(
        f"the supervisor of {fleet.fleet_file} ended before it answered; start it again with "
        f"`paragone up {fleet.fleet_file}`"
    )
