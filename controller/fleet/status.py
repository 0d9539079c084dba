"""`paragone status`: what a controller says about its workers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence

from controller.fleet.probe import ProbeError, fetch_workers, fleet_client
from controller.fleet.table import render_workers
from controller.protocol.fleet import FleetView, WorkerView

_WATCH_SECONDS = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


async def show_status(
    controller_url: str, *, as_json: bool, watch: bool, troubles: Callable[[], Sequence[str]]
) -> None:
    """Prints the workers once, or again and again until it is interrupted.

    Args:
        controller_url: the controller.
        as_json: print JSON, one line a look, instead of a table.
        watch: look again every second.
        troubles: says which processes do not run, which a controller may never have heard of; it
            may block.

    Raises:
        ProbeError: the controller does not answer; while it is watched, the first time.
    """
    redraw = watch and not as_json and sys.stdout.isatty()
    has_answered = False
    async with fleet_client(os.environ) as client:
        while True:
            try:
                workers = await fetch_workers(client, controller_url)
            except ProbeError as exc:  # it may be restarted, which is when one watches
                if not has_answered:
                    raise
                _say(exc, redraw=redraw)
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            has_answered = True
            if as_json:
                text = _as_json(workers)
            else:
                text = "\n".join([render_workers(workers), *await asyncio.to_thread(troubles)])
            sys.stdout.write(f"{_HOME_AND_CLEAR if redraw else ''}{text}\n")
            sys.stdout.flush()
            if not watch:
                return
            await asyncio.sleep(_WATCH_SECONDS)


def _say(exc: ProbeError, *, redraw: bool) -> None:
    """In the table's place on a terminal; elsewhere apart from what programs read."""
    if redraw:
        sys.stdout.write(f"{_HOME_AND_CLEAR}{exc}\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(f"{exc}\n")


def _as_json(workers: list[WorkerView]) -> str:
    return FleetView(workers=workers).model_dump_json()
