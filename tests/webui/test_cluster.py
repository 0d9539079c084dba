"""The cluster view shows what the controller says, as ``paragone status`` does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI

from controller.chassis.http import install_errors
from controller.fleet.table import render_workers
from controller.protocol.fleet import (
    DrainRequest,
    FleetView,
    LoadProgress,
    ModelCard,
    Quantisation,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
    WorkerView,
)
from webui.client import ControllerClient
from webui.cluster import ClusterHistory, cluster_routes, rows_of
from webui.watch import FleetWatch

pytestmark = pytest.mark.anyio
_KEY = "correct horse"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def _worker(number: int, status: WorkerStatus, *, suspect: bool = False) -> WorkerView:
    return WorkerView(
        worker_id=f"w{number}",
        address=f"http://10.0.0.{number}:21002",
        version="0.1.0",
        status=status,
        heartbeat_age_seconds=0.4,
        lease_seconds=3,
        in_flight=0,
        suspect=suspect,
    )


def _fleet() -> FleetView:
    full = ModelCard(name="full", dtype="bfloat16")
    lora = ModelCard(name="lora", base="vicuna", adapter="a", quantisation=Quantisation.NF4)
    load = WorkerLoad(
        running=2,
        waiting=1,
        capacity=4,
        tokens_per_second=51.25,
        memory_bytes=812_000_000,
        device_memory_bytes=13_400_000_000,
        kv_use=0.25,
        cache_hit_rate=0.5,
        uptime_seconds=7_300,
    )
    loading = LoadProgress(phase="language <model>", fraction=0.42)
    return FleetView(
        workers=[
            _worker(2, WorkerStatus(state=WorkerState.LOADING, models=[lora], progress=loading)),
            _worker(1, WorkerStatus(state=WorkerState.READY, models=[full], load=load)),
            _worker(3, WorkerStatus(state=WorkerState.READY, models=[full]), suspect=True),
            _worker(4, WorkerStatus(state=WorkerState.FAILED, models=[full], detail="no room")),
        ]
    )


def test_the_rows_are_those_that_paragone_status_prints() -> None:
    view = _fleet()
    header, *lines = render_workers(view.workers).splitlines()
    columns = ("model", "state", "weights", "base", "running", "waiting", "beat", "address")
    names = [name.lower() for name in header.split()]
    assert set(columns) < set(names)
    printed = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        row = dict(zip(names, cells, strict=True))
        row["state"] = row["state"].partition(": language")[0]  # the page has a bar for the phase
        printed.append([row[column] for column in columns])
    shown = [[row[column] for column in columns] for row in rows_of(view)]
    assert sorted(shown) == sorted(printed)


class _Cells(HTMLParser):
    """The text of each cell by its column, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self._column: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr" and "data-worker" in given:
            self.rows.append({})
        self._column = given.get("data-column") or (self._column if tag != "td" else None)

    def handle_data(self, data: str) -> None:
        if self.rows and self._column:
            self.rows[-1][self._column] = self.rows[-1].get(self._column, "") + data


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The view over a controller that knows one fleet and takes one token."""
    controller = FastAPI()

    @controller.get("/fleet/workers")
    async def workers() -> FleetView:
        return _fleet()

    @controller.post("/fleet/drain")
    async def drain(asked: DrainRequest) -> dict[str, bool]:
        return {"known": asked.worker_id == "w1"}

    client = ControllerClient("http://controller")
    client._http = httpx.AsyncClient(
        transport=httpx.ASGITransport(controller), base_url="http://controller"
    )
    watch = FleetWatch(client, interval_seconds=1)
    now = [0.0]
    history = ClusterHistory(lambda: now[0])
    watch.observers.append(history.take)
    for _ in range(3):
        await watch.refresh()
        now[0] += 2
    app = FastAPI()
    install_errors(app)
    app.include_router(cluster_routes(watch, client, history, admin_key=_KEY))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as asked:
        yield asked
    await client.aclose()


async def test_the_page_shows_every_figure_of_a_worker(http: httpx.AsyncClient) -> None:
    parser = _Cells()
    html = (await http.get("/cluster")).text
    parser.feed(html)
    first = parser.rows[0]
    assert (first["state"], first["running"], first["waiting"]) == ("ready", "2/4", "1")
    assert (first["tokens/s"], first["KV"], first["cache hits"]) == ("51.2", "25%", "50%")
    assert (first["GPU memory"], first["host memory"]) == ("13.4\u202fGB", "812\u202fMB")
    assert (first["version"], first["uptime"]) == ("0.1.0", "2 h")
    (loading,) = [row for row in parser.rows if row["model"] == "lora"]
    assert loading["state"].startswith("loading 42%")
    assert "language <model>" in loading["state"]  # escaped, or the parser had lost it
    assert html.count("<polyline") == 3 * 4
    plotted = re.findall(r"<figcaption><span>(\w+):", html)[::3]
    assert plotted == [row["model"] for row in parser.rows]  # in the order of the table


async def test_only_who_has_the_key_can_drain(http: httpx.AsyncClient) -> None:
    for key, worker, status in (("", "w1", 403), ("wrong key", "w1", 403), (_KEY, "w9", 404)):
        body = {"worker_id": worker, "admin_key": key}
        assert (await http.post("/cluster/drain", json=body)).status_code == status
    reply = await http.post("/cluster/drain", json={"worker_id": "w1", "admin_key": _KEY})
    assert reply.json() == {"draining": "w1"}
    assert _KEY not in (await http.get("/cluster")).text


def test_a_workers_past_is_bounded_and_goes_with_it() -> None:
    now = [0.0]
    history = ClusterHistory(lambda: now[0])
    for _ in range(1000):
        history.take(_fleet())
        history.take(_fleet())  # within the same step: not counted
        now[0] += 2
    assert len(history.of("w1")) == 300
    history.take(FleetView(workers=[]))
    assert history.of("w1") == ()
