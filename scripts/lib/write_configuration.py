"""Writes the tables of docs/configuration.md from the settings' own models; the tests compare."""

from __future__ import annotations

import re
import sys
import types
import typing
from enum import Enum
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from controller.chassis.settings import ProcessSettings
from controller.fleet.loading import Loading
from controller.fleet.needs import RaySpec
from controller.fleet.process_spec import ControllerSpec, WebSpec
from controller.fleet.spec import FleetSpec, RestartSpec
from controller.fleet.worker_spec import Limits, WorkerSpec
from controller.settings import ENV_PREFIX as CONTROLLER_PREFIX
from controller.settings import ControllerSettings
from webui.settings import ENV_PREFIX as WEB_PREFIX
from webui.settings import WebSettings
from worker.settings import ENV_PREFIX as WORKER_PREFIX
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"

# What a table is called in the page: the model, and the prefix of its environment variables.
TABLES: dict[str, tuple[type[BaseModel], str | None]] = {
    "fleet": (FleetSpec, None),
    "fleet.controller": (ControllerSpec, None),
    "fleet.web": (WebSpec, None),
    "fleet.workers": (WorkerSpec, None),
    "fleet.limits": (Limits, None),
    "fleet.loading": (Loading, None),
    "fleet.ray": (RaySpec, None),
    "fleet.restart": (RestartSpec, None),
    "controller": (ControllerSettings, CONTROLLER_PREFIX),
    "worker": (WorkerSettings, WORKER_PREFIX),
    "web": (WebSettings, WEB_PREFIX),
}
_MARK = re.compile(r"(<!-- table: (?P<name>[\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(page: str) -> str:
    """The page with its tables written anew."""

    def fill(match: re.Match[str]) -> str:
        model, prefix = TABLES[match["name"]]
        return f"{match[1]}{table(model, prefix)}\n{match[3]}"

    return _MARK.sub(fill, page)


def table(model: type[BaseModel], prefix: str | None) -> str:
    """A Markdown table of a model's fields.

    Args:
        model: the settings.
        prefix: of the environment variables; None for keys of the fleet file.
    """
    head = ["Key"] if prefix is None else ["Flag", "Environment"]
    rows = [[*head, "Default", "Meaning"]]
    rows.append(["---"] * len(rows[0]))
    # What is its own first, then what it shares with other processes.
    shared = set(ProcessSettings.model_fields) - set(model.__annotations__)
    own = [name for name in model.model_fields if name not in shared]
    for name in dict.fromkeys([*own, *model.model_fields]):
        field = model.model_fields[name]
        if prefix is None:
            names = [f"`{name}`"]
        else:
            names = [f"`--{name.replace('_', '-')}`", f"`{prefix}{name.upper()}`"]
        rows.append([*names, _default(field), _meaning(field)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value in (None, (), {}) or value is PydanticUndefined:
        return ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        value = "yes" if value else "no"
    elif isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    elif isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    choices = _choices(field.annotation)
    return f"{text} ({', '.join(choices)})".strip() if choices else text


def _choices(annotation: object) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [f"`{value}`" for value in typing.get_args(annotation)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [text for part in typing.get_args(annotation) for text in _choices(part)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [f"`{member.value}`" for member in annotation]
    return []


def main() -> int:
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
