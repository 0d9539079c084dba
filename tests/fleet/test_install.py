"""What the wheel holds and what the base install takes, measured without a network."""

from __future__ import annotations

import importlib.metadata
import runpy
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MEGABYTE = 1_000_000
WHEEL_LIMIT = 2 * MEGABYTE
INSTALL_LIMIT = 60 * MEGABYTE
needed = runpy.run_path(str(ROOT / "scripts" / "lib" / "check_pins.py"))["needed"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def installed_bytes(name: str) -> int:
    """The files of an installed package, byte code included."""
    files = importlib.metadata.files(name) or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())


def test_the_wheel_holds_the_three_packages_and_no_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "controller",
        "worker",
        "webui",
    }
    assert [name for name in names if name.endswith((".safetensors", ".bin"))] == []
    assert "webui/examples/examples.json" in names
    assert wheel.stat().st_size < WHEEL_LIMIT


def test_the_base_install_stays_below_its_limit(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {Requirement(text).name for text in project["dependencies"]}
    packages = direct | {each for name in direct for each in needed(name, ())}
    with zipfile.ZipFile(wheel) as archive:
        own = sum(entry.file_size for entry in archive.infolist())
    sizes = {name: installed_bytes(name) for name in packages}
    # Byte code is about as large as what it is made of.
    total = 2 * own + sum(sizes.values())
    assert total < INSTALL_LIMIT, sorted(sizes.items(), key=lambda item: -item[1])
    assert min(sizes[name] for name in direct) > 0
