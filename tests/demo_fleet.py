"""The demo fleet as subprocesses of `paragone up`, on free ports; one for all tests that use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fleet.running import RunningFleet, eventually
from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo.yaml"

# Cold imports of torch by four processes on two cores.
START_SECONDS = 180


class DemoFleet(RunningFleet):
    """The demo's own fleet file with other ports, running.

    Args:
        folder: where its fleet file is written.
    """

    def __init__(self, folder: Path) -> None:
        spec = _with_free_ports(yaml.safe_load(DEMO.read_text()))
        # A wrong name is one at once: no test waits until the controller is no longer young.
        spec["controller"]["env"] = {"PARAGONE_CONTROLLER_SETTLING_SECONDS": "0"}
        path = folder / "demo.yaml"
        path.write_text(yaml.safe_dump(spec))
        self.path = path
        self.ports = {
            "controller": spec["controller"]["port"],
            "web": spec["web"]["port"],
            **{worker["name"]: worker["port"] for worker in spec["workers"]},
        }
        super().__init__(path)

    @property
    def controller_url(self) -> str:
        """Where the controller answers."""
        return f"http://127.0.0.1:{self.ports['controller']}"

    @property
    def web_url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.ports['web']}"

    @property
    def worker_urls(self) -> dict[str, str]:
        """Where each worker answers, by model, in the fleet file's order."""
        return {
            name: f"http://127.0.0.1:{port}"
            for name, port in self.ports.items()
            if name not in {"controller", "web"}
        }

    @property
    def models(self) -> list[str]:
        """The models, in the fleet file's order."""
        return list(self.worker_urls)

    def listed(self) -> list[str]:
        """What ``/v1/models`` lists now; empty while the controller is down."""
        try:
            reply = httpx.get(self.controller_url + "/v1/models", trust_env=False, timeout=2)
        except httpx.HTTPError:
            return []
        return sorted(entry["id"] for entry in reply.json()["data"])

    def wait_until_complete(self, within: float = START_SECONDS) -> None:
        """Waits until every model is listed."""
        eventually(
            lambda: self.listed() == sorted(self.models), within=within, what="all models listed"
        )


def _with_free_ports(spec: dict[str, Any]) -> dict[str, Any]:
    processes = [spec["controller"], spec["web"], *spec["workers"]]
    for process, port in zip(processes, free_ports(len(processes)), strict=True):
        process["port"] = port
    for worker in spec["workers"]:
        for key in ("model_path", "model_base"):
            if key in worker:
                worker[key] = str((DEMO.parent / worker[key]).resolve())
    return spec


@pytest.fixture(scope="session")
def demo_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoFleet]:
    """The whole demo fleet, ready. A test that kills a part of it waits until it is back."""
    fleet = DemoFleet(tmp_path_factory.mktemp("demo"))
    try:
        fleet.wait_for_line("Paragone is ready: " + ", ".join(fleet.models), within=START_SECONDS)
        assert set(fleet.pids) == set(fleet.ports)
        yield fleet
        # SIGTERM stops every process of the demo, whatever the tests have done to it.
        assert fleet.stop() == 0, fleet.output
        assert fleet.survivors() == set()
    finally:
        fleet.kill()
