"""Fleet files of fake workers, whose checkpoint is an empty one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from controller.fleet.commands import ProcessPlan, plan_fleet
from controller.fleet.fleet_file import parse_fleet
from tests.ports import free_ports


def plans_of_one_worker() -> list[ProcessPlan]:
    """A controller's and a worker's; nothing is to be started of them."""
    text = "workers: [{name: w, model_path: /m, port: 31002, device: cpu}]"
    return plan_fleet(parse_fleet(text, source="f", folder=Path("/")), cores=1)


def make_model(folder: Path) -> None:
    """The workers' checkpoint, beside the fleet file."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")


def write_fleet_file(
    folder: Path, workers: Sequence[Sequence[str]], keys: str, *, web: str | None = None, extra: str
) -> Path:
    """A fleet of workers w0, w1, ... on free ports.

    Args:
        folder: where it is written, with `make_model`'s checkpoint.
        workers: the flags of each.
        keys: further keys of every worker.
        web: further keys of the page; None for no page.
        extra: further lines.
    """
    ports = iter(free_ports(len(workers) + 2))
    lines = [f"controller: {{port: {next(ports)}}}"]
    if web is not None:
        lines.append(f"web: {{port: {next(ports)}, {web}}}")
    lines.append("workers:")
    for index, args in enumerate(workers):
        quoted = ", ".join(f"'{arg}'" for arg in args)
        lines.append(
            f"  - {{name: w{index}, model_path: ./model, port: {next(ports)}, {keys}, "
            f"args: [{quoted}]}}"
        )
    path = folder / "fleet.yaml"
    path.write_text("\n".join(lines) + "\n" + extra)
    return path
