"""Fleets of fake processes, run by the real command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fleet.fleet_files import make_model, write_fleet_file
from tests.fleet.running import RunningFleet

FAKE = Path(__file__).with_name("fake_process.py")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder that, on the PYTHONPATH, makes `worker` and `webui` the fake process."""
    folder = tmp_path / "fakes"
    for package in ("worker", "webui"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
        (folder / package / "__main__.py").write_text(
            f"import runpy\nrunpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
        )
    return folder


@pytest.fixture
def write_fleet(tmp_path: Path, fakes: Path) -> Callable[..., Path]:
    """Writes a fleet file with one fake worker for each list of extra flags."""
    make_model(tmp_path)
    env = f"env: {{PYTHONPATH: {fakes}}}"

    def write(*workers: list[str], web: bool = False, extra: str = "") -> Path:
        return write_fleet_file(tmp_path, workers, env, web=env if web else None, extra=extra)

    return write


@pytest.fixture
def start_fleet(
    write_fleet: Callable[..., Path],
) -> Iterator[Callable[..., RunningFleet]]:
    """Starts fleets of fake workers; whatever a test leaves of them is killed."""
    fleets: list[RunningFleet] = []

    def start(*workers: list[str], web: bool = False, extra: str = "") -> RunningFleet:
        fleets.append(RunningFleet(write_fleet(*workers, web=web, extra=extra)))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.kill()
