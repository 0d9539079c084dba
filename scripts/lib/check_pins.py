"""Holds configs/constraints.txt to its promise: all that we need, pinned exactly, each once."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "configs" / "constraints.txt"
EXTRAS = ("worker", "webui", "dev")
_PIN = re.compile(r"^(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==(?P<version>[a-z0-9.!]+)$")


def needed(name: str, extras: Sequence[str]) -> set[str]:
    """What a package needs here, itself left out; names are canonical."""
    seen: dict[str, set[str]] = {}

    def walk(current: str, wanted: set[str]) -> None:
        known = seen.setdefault(canonicalize_name(current), set())
        fresh = wanted - known
        known |= wanted
        for text in requires(current) or [] if fresh else []:
            requirement = Requirement(text)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in fresh
            ):
                try:
                    walk(requirement.name, {"", *requirement.extras})
                except PackageNotFoundError:
                    continue  # not for this platform

    walk(name, {"", *extras})
    return {found for found in seen if found != name}


def problems(lines: Sequence[str], wanted: set[str]) -> Iterator[str]:
    """What is wrong with the constraints' lines."""
    pins = [line for line in lines if line and not line.startswith("#")]
    names = []
    for pin in pins:
        match = _PIN.match(pin)
        if match is None:
            yield f"not an exact pin of a canonical name: {pin}"
        else:
            names.append(match["name"])
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"pinned more than once: {name}"
    if pins != sorted(pins):
        yield "not sorted"
    for name in sorted(wanted - set(names)):
        yield f"needed and not pinned: {name}"
    for name in sorted(set(names) - wanted):
        yield f"pinned and not needed: {name}"


def main() -> int:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    found = list(problems(lines, needed("paragone", EXTRAS)))
    for problem in found:
        print(f"{CONSTRAINTS.name}: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
