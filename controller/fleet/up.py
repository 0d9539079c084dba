"""`paragone up`: a supervisor on this terminal."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence

from controller.fleet.commands import ProcessPlan
from controller.fleet.console import Console
from controller.fleet.restart import RestartRule
from controller.fleet.spec import FleetSpec
from controller.fleet.supervisor import Supervisor


def run_fleet(spec: FleetSpec, plans: Sequence[ProcessPlan], *, title: str) -> int:
    """Runs a fleet until it is stopped.

    Args:
        spec: the fleet.
        plans: its processes.
        title: what the first line calls it.

    Returns:
        The exit status.
    """
    return asyncio.run(_run(spec, plans, title))


async def _run(spec: FleetSpec, plans: Sequence[ProcessPlan], title: str) -> int:
    loop = asyncio.get_running_loop()

    def stop_from_any_thread() -> None:
        """Nobody reads any more (`| head`): as when a terminal is closed."""
        loop.call_soon_threadsafe(supervisor.request_stop)

    is_terminal = sys.stdout.isatty()
    console = Console(
        sys.stdout.fileno(),
        [plan.name for plan in plans],
        live=is_terminal,
        colour=is_terminal and "NO_COLOR" not in os.environ,
        columns=lambda: shutil.get_terminal_size().columns,
        utf8=(sys.stdout.encoding or "").lower().replace("-", "") == "utf8",
        on_broken=stop_from_any_thread,
    )
    supervisor = Supervisor(
        plans,
        rule=RestartRule(**spec.restart.model_dump()),
        grace_seconds=spec.stop_grace_seconds,
        console=console,
    )
    console.note(f"starting {len(plans)} processes of {title}")
    try:
        return await supervisor.run()
    finally:
        await asyncio.to_thread(console.close)
