"""Reads a fleet file, and says all that is wrong with one, with the lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.chassis.wording import cause_of
from controller.fleet.loading import Loading
from controller.fleet.needs import RaySpec
from controller.fleet.process_spec import ControllerSpec, WebSpec
from controller.fleet.section import Section
from controller.fleet.spec import FleetSpec, RestartSpec
from controller.fleet.worker_spec import PATTERNS, Limits, WorkerSpec


class FleetFileError(Exception):
    """The fleet file cannot be used; the message has a line for each thing wrong with it."""


def with_replicas(spec: FleetSpec, name: str, replicas: int) -> FleetSpec:
    """The same fleet with so many of one worker.

    Raises:
        FleetFileError: its ports or GPUs do not suffice for them.
    """
    content = spec.model_dump()
    for worker in content["workers"]:
        if worker["name"] == name:
            worker["replicas"] = replicas
    try:
        return FleetSpec.model_validate(content)
    except ValidationError as exc:
        causes = [cause for error in exc.errors() for cause in _explain(error)]
        raise FleetFileError("\n".join(causes)) from exc


def load_fleet_file(path: Path) -> FleetSpec:
    """Reads a fleet file.

    Relative folders in it are taken from the file's own folder, so that a fleet can be started
    from anywhere.

    Raises:
        FleetFileError: the file cannot be read, or is not a fleet file; all causes are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise FleetFileError(f"{path}: cannot be read: {reason}") from exc
    return parse_fleet(text, source=str(path), folder=path.parent.resolve())


def parse_fleet(text: str, *, source: str, folder: Path) -> FleetSpec:
    """The fleet that a YAML text describes.

    Args:
        text: the YAML.
        source: what messages call it.
        folder: where relative folders start; absolute.

    Raises:
        FleetFileError: it is not a fleet file; all causes are named, with their lines.
    """
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        raise FleetFileError(_yaml_cause(source, text, exc)) from exc
    except (ValueError, RecursionError) as exc:  # a date that is none, a thousand brackets
        raise FleetFileError(f"{source}: cannot be read as YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise FleetFileError(f"{source}: expected a mapping with the key `workers`")
    try:
        return FleetSpec.model_validate(content, context={"folder": folder})
    except ValidationError as exc:
        causes = [
            (_line_of(root, error["loc"] or _place_in(cause)), cause)
            for error in exc.errors()
            for cause in _explain(error)
        ]
        message = "\n".join(f"{source}:{line}: {cause}" for line, cause in sorted(causes))
        raise FleetFileError(message) from exc


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML itself says that keys are unique; PyYAML takes the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_cause(source: str, text: str, exc: yaml.YAMLError) -> str:
    """What the parser stumbled over, with the line as editors take it."""
    if not isinstance(exc, yaml.MarkedYAMLError) or exc.problem_mark is None:
        return f"{source}: {exc}"
    mark = exc.problem_mark
    # A key without its colon is only missed where the next line begins.
    if exc.context_mark is not None and exc.problem == "could not find expected ':'":
        mark = exc.context_mark
        return f"{source}:{mark.line + 1}: expected a key, a colon and a space, as in `port: 21001`"
    if text[mark.index : mark.index + 1] == "\t":
        return f"{source}:{mark.line + 1}: there is a tab; YAML takes spaces alone"
    if exc.problem and exc.problem.startswith("expected <block end>"):
        return f"{source}:{mark.line + 1}: this line is indented unlike those that it belongs to"
    where = f" ({exc.context})" if exc.context else ""
    return f"{source}:{mark.line + 1}: {exc.problem}{where}"


def _place_in(cause: str) -> list[int | str]:
    """The place that a message of a rule about several keys begins with: `workers[1].port: ...`."""
    return [
        int(index) if index else name
        for name, index in re.findall(r"(\w+)|\[(\d+)\]", cause.partition(": ")[0])
    ]


def _line_of(root: yaml.Node | None, loc: Sequence[int | str]) -> int:
    """The line, from 1, of the deepest node on the way to ``loc``."""
    node, line = root, 1
    for part in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == part), None)
            if found is None:
                break
            node = found[1]
            line = found[0].start_mark.line + 1
    return line


def _explain(error: ErrorDetails) -> list[str]:
    key = _dotted(error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        return [f"{key}: unknown key; {hint}"]
    if error["type"] == "missing":
        return [f"{key}: is missing"]
    cause = error.get("ctx", {}).get("error")
    if cause is not None:  # one of our own validators; its text stands for itself
        return [f"{key}: {line}" if key else line for line in str(cause).splitlines()]
    expected = PATTERNS.get(str(error.get("ctx", {}).get("pattern")))
    return [f"{key or 'the file'}: {cause_of(error, expected)}"]


def _dotted(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _keys_at(loc: Sequence[int | str]) -> list[str]:
    """The keys that a mapping at ``loc`` may have."""
    sections: dict[str, type[Section]] = {
        "controller": ControllerSpec,
        "web": WebSpec,
        "workers": WorkerSpec,
        "restart": RestartSpec,
        "limits": Limits,
        "loading": Loading,
        "ray": RaySpec,
    }
    names = [part for part in loc if isinstance(part, str)]
    model = sections[names[-1]] if names else FleetSpec
    return list(model.model_fields)
