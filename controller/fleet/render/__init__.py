"""The fleet file for what else starts processes: a table from target to renderer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from controller.fleet.commands import plan_fleet
from controller.fleet.fleet_file import FleetFileError
from controller.fleet.render import compose, kubernetes, slurm, systemd
from controller.fleet.render.placing import label
from controller.fleet.spec import FleetSpec

_RENDERERS: Final[Mapping[str, Callable[[FleetSpec, str], dict[str, str]]]] = {
    "compose": compose.render,
    "kubernetes": kubernetes.render,
    "slurm": slurm.render,
    "systemd": systemd.render,
}
# Whose names for processes are names of hosts.
_WITH_LABELS: Final = frozenset({"compose", "kubernetes"})
# Where certificates would have to name other hosts, and lie in other places, than here.
_WITHOUT_TLS: Final = frozenset({"compose", "kubernetes", "slurm"})


def render_fleet(spec: FleetSpec, fleet_file: Path, target: str) -> dict[str, str]:
    """The files for a target, by name.

    Args:
        spec: the fleet.
        fleet_file: where it is described; named in the files' first lines.
        target: a key of the table.

    Raises:
        FleetFileError: the target cannot have it so.
    """
    plans = plan_fleet(spec, cores=1)
    shown = [plan.name for plan in plans if plan.certificate is not None]
    if shown and target in _WITHOUT_TLS:
        raise FleetFileError(
            f"{fleet_file}: {', '.join(shown)}: certificates are those of this machine, and are "
            f"not rendered for {target}; leave --tls-cert out, and let what is before the fleet "
            f"there (a proxy, an ingress) speak HTTPS"
        )
    if target in _WITH_LABELS:
        names: dict[str, str] = {}
        for plan in plans:
            if (other := names.setdefault(label(plan), plan.name)) != plan.name:
                raise FleetFileError(
                    f"{fleet_file}: {other} and {plan.name} would both be {label(plan)!r} for "
                    f"{target}, which takes lower-case letters, digits and hyphens; rename one"
                )
    header = f"Rendered by `paragone fleet render {fleet_file} --to {target}`; change that file."
    return _RENDERERS[target](spec, header)
