"""`paragone up`: a supervisor on this terminal, or a changed file for the one that runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from controller.fleet.commands import ProcessPlan
from controller.fleet.console import Console, JsonConsole
from controller.fleet.control import ControlServer
from controller.fleet.live import LiveFleet
from controller.fleet.log_book import LogBook
from controller.fleet.place import Place
from controller.fleet.restart import RestartRule
from controller.fleet.spec import FleetSpec
from controller.fleet.state_dir import StateDir
from controller.fleet.supervisor import Supervisor


def run_fleet(
    spec: FleetSpec,
    plans: Sequence[ProcessPlan],
    *,
    place: Place,
    path: Path,
    state: StateDir,
    wait_for_nodes: bool = False,
    output: str = "auto",
) -> int:
    """Runs a fleet until it is stopped.

    Args:
        spec: the fleet.
        plans: its processes.
        place: where they run.
        path: its file.
        state: the folder of its control socket, held by this process.
        wait_for_nodes: whether workers were taken that no node could run as it is now.
        output: plain lines, json lines, or auto: lines and a board on a terminal, else json.

    Returns:
        The exit status.
    """
    return asyncio.run(
        _run(
            spec,
            plans,
            place=place,
            path=path,
            state=state,
            wait_for_nodes=wait_for_nodes,
            output=output,
        )
    )


async def _run(
    spec: FleetSpec,
    plans: Sequence[ProcessPlan],
    *,
    place: Place,
    path: Path,
    state: StateDir,
    wait_for_nodes: bool,
    output: str,
) -> int:
    loop = asyncio.get_running_loop()

    def stop_from_any_thread() -> None:
        """Nobody reads any more (`| head`): as when a terminal is closed."""
        loop.call_soon_threadsafe(supervisor.request_stop)

    is_terminal = sys.stdout.isatty()
    as_json = output == "json" or (output == "auto" and not is_terminal)
    logs = LogBook()
    console = (JsonConsole if as_json else Console)(
        sys.stdout.fileno(),
        [plan.name for plan in plans],
        live=is_terminal and output == "auto",
        colour=is_terminal and not as_json and "NO_COLOR" not in os.environ,
        columns=lambda: shutil.get_terminal_size().columns,
        rows=lambda: shutil.get_terminal_size().lines,
        utf8=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
        on_broken=stop_from_any_thread,
    )
    supervisor = Supervisor(
        plans,
        place=place,
        rule=RestartRule(**spec.restart.model_dump()),
        grace_seconds=spec.stop_grace_seconds,
        console=console,
        logs=logs,
    )
    console.note(f"starting {len(plans)} processes of {path}")
    fleet = LiveFleet(path, spec, place, supervisor, logs, wait_for_nodes=wait_for_nodes)
    try:
        with place.showing(console):
            async with ControlServer(state.socket, fleet):
                return await supervisor.run()
    finally:
        await asyncio.to_thread(console.close)
