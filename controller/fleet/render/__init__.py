"""The fleet file for what else starts processes: a table from target to renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from controller.fleet.render import compose, kubernetes, slurm, systemd
from controller.fleet.spec import FleetSpec

_RENDERERS: Final[Mapping[str, Callable[[FleetSpec, str], dict[str, str]]]] = {
    "compose": compose.render,
    "kubernetes": kubernetes.render,
    "slurm": slurm.render,
    "systemd": systemd.render,
}


def render_fleet(spec: FleetSpec, fleet_file: Path, target: str) -> dict[str, str]:
    """The files for a target, by name.

    Args:
        spec: the fleet.
        fleet_file: where it is described; named in the files' first lines.
        target: a key of the table.
    """
    header = f"Rendered by `paragone fleet render {fleet_file} --to {target}`; change that file."
    return _RENDERERS[target](spec, header)
