"""The cluster view: every worker as the controller sees it now, how it was lately, and a drain.

Its cells say what ``paragone status`` prints; a test holds the two to each other.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from controller.protocol.errors import NotFoundError, PermissionDeniedError, UnavailableError
from controller.protocol.fleet import FleetView, ModelCard, WorkerLoad, WorkerState, WorkerView
from webui.client import ControllerClient
from webui.controller_error import ControllerError
from webui.document import document, reader_of, refuse_other_sites
from webui.figures import size
from webui.language import Words
from webui.watch import FleetWatch

_STEP_SECONDS = 2.0
_POINTS = 300  # ten minutes
_MAX_WORKERS = 256  # whose past is remembered
_NOTHING = "–"


class Draining(BaseModel):
    """What the button sends: the key is typed by a person, and kept by nobody."""

    model_config = ConfigDict(extra="forbid")

    worker_id: str = Field(max_length=128)
    admin_key: str = Field(default="", max_length=512)


@dataclass(frozen=True, slots=True)
class Point:
    """How a worker was at one time."""

    running: int
    waiting: int
    tokens_per_second: float
    memory_bytes: int  # on the device where there is one, else the process's own


class ClusterHistory:
    """The last ten minutes of each worker, in memory.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._taken_at = float("-inf")
        self._points: dict[str, deque[Point]] = {}

    def take(self, view: FleetView) -> None:
        """Notes how the workers are, every two seconds however often it is called."""
        now = self._clock()
        if now - self._taken_at < _STEP_SECONDS * 0.9:
            return
        self._taken_at = now
        alive = {worker.worker_id: worker.status.load for worker in view.workers[:_MAX_WORKERS]}
        self._points = {key: each for key, each in self._points.items() if key in alive}
        for worker_id, load in alive.items():
            points = self._points.setdefault(worker_id, deque(maxlen=_POINTS))
            memory = load.device_memory_bytes or load.memory_bytes or 0
            points.append(Point(load.running, load.waiting, load.tokens_per_second or 0.0, memory))

    def of(self, worker_id: str) -> tuple[Point, ...]:
        """A worker's past, oldest first."""
        return tuple(self._points.get(worker_id, ()))


def cluster_routes(
    watch: FleetWatch,
    client: ControllerClient,
    history: ClusterHistory,
    *,
    admin_key: str | None,
) -> APIRouter:
    """The routes of the cluster view.

    Args:
        watch: what is known of the fleet.
        client: the controller, for drains.
        history: of the workers.
        admin_key: who types it may drain; it is the fleet's token too, where the controller has
            one. Without it nobody may drain here.
    """
    can_drain = admin_key is not None
    router = APIRouter()

    @router.get("/cluster")
    async def cluster(request: Request) -> Response:
        """The page."""
        reader = reader_of(request)
        html = _body_html(watch, history, reader.words, can_drain=can_drain)
        body = f'<div id="cluster">{html}</div>'
        return document(
            reader,
            view="cluster",
            title=reader.words("Cluster"),
            body=body,
            scripts=("cluster.js",),
        )

    @router.get("/cluster/live")
    async def live(request: Request) -> Response:
        """What changes of it, as HTML; the page asks again and again."""
        html = _body_html(watch, history, reader_of(request).words, can_drain=can_drain)
        headers = {"cache-control": "no-store"}
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)

    @router.post("/cluster/drain")
    async def drain(draining: Draining, request: Request) -> dict[str, str]:
        """Takes a worker out of service, for those who have the fleet's token."""
        refuse_other_sites(request)
        if admin_key is None:
            raise PermissionDeniedError(
                "Nobody may drain workers here: start the page with PARAGONE_WEBUI_ADMIN_KEY."
            )
        if not hmac.compare_digest(draining.admin_key.encode(), admin_key.encode()):
            raise PermissionDeniedError("This is not the key of those who may drain workers.")
        try:
            known = await client.drain(draining.worker_id, admin_key=admin_key)
        except ControllerError as exc:
            raise UnavailableError(exc.message) from exc
        if not known:
            raise NotFoundError("The controller knows this worker no longer.")
        return {"draining": draining.worker_id}

    return router


def rows_of(view: FleetView) -> list[dict[str, str]]:
    """The cells of the table by column, one row for each model of each worker, in its order."""
    rows = [
        _row(worker, card) | {"id": worker.worker_id}
        for worker in view.workers
        for card in worker.status.models
    ]
    return sorted(rows, key=lambda row: (row["model"], row["address"]))


def _row(worker: WorkerView, card: ModelCard) -> dict[str, str]:
    load = worker.status.load
    return {
        "model": card.name,
        "state": worker.shown_state,
        "weights": card.shown_weights,
        "base": card.base or "-",
        "running": f"{load.running}/{load.capacity}",
        "waiting": str(load.waiting),
        "tokens/s": _or_nothing(load.tokens_per_second, "{:.1f}"),
        "KV": _or_nothing(load.kv_use, "{:.0%}"),
        "cache hits": _or_nothing(load.cache_hit_rate, "{:.0%}"),
        "GPU memory": _bytes(load.device_memory_bytes),
        "host memory": _bytes(load.memory_bytes),
        "beat": f"{worker.heartbeat_age_seconds:.1f} s ago",
        "version": worker.version,
        "uptime": _uptime(load),
        "address": worker.address,
    }


def _or_nothing(value: float | None, form: str) -> str:
    return _NOTHING if value is None else form.format(value)


def _bytes(value: int | None) -> str:
    return _NOTHING if value is None else size(value)


def _uptime(load: WorkerLoad) -> str:
    if load.uptime_seconds is None:
        return _NOTHING
    minutes = int(load.uptime_seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


def _body_html(watch: FleetWatch, history: ClusterHistory, words: Words, *, can_drain: bool) -> str:
    problem = watch.catalogue.problem
    notice = f'<p class="error" role="alert">{escape(problem)}</p>' if problem else ""
    view = watch.view
    if view is None or not view.workers:
        return notice or f'<p class="empty">{escape(words("no worker is registered"))}</p>'
    return (
        notice + _table_html(view, words, can_drain=can_drain) + _plots_html(view, history, words)
    )


def _table_html(view: FleetView, words: Words, *, can_drain: bool) -> str:
    heads = (
        ("model", words("model")),
        ("state", words("state")),
        ("weights", words("weights")),
        ("base", words("base")),
        ("running", words("running")),
        ("waiting", words("queue")),
        ("tokens/s", words("tokens/s")),
        ("KV", words("KV use")),
        ("cache hits", words("cache hits")),
        ("GPU memory", words("GPU memory")),
        ("host memory", words("host memory")),
        ("beat", words("heartbeat")),
        ("version", words("version")),
        ("uptime", words("uptime")),
        ("address", words("address")),
    )
    workers = {worker.worker_id: worker for worker in view.workers}
    rows = "".join(
        f'<tr data-worker="{escape(row["id"])}">'
        + "".join(_cell_html(key, row, workers[row["id"]]) for key, _ in heads)
        + (_drain_html(row, words) if can_drain else "")
        + "</tr>"
        for row in rows_of(view)
    )
    names = "".join(f'<th scope="col">{escape(name)}</th>' for _, name in heads)
    names += "<td></td>" if can_drain else ""
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _drain_html(row: dict[str, str], words: Words) -> str:
    return (
        f'<td><button data-drain="{escape(row["id"])}" '
        f'data-ask="{escape(words("Key of those who may drain workers:"))}" '
        f'aria-label="{escape(words("Drain {name}", name=row["model"]))}">'
        f"{escape(words('Drain'))}</button></td>"
    )


def _cell_html(key: str, row: dict[str, str], worker: WorkerView) -> str:
    text = escape(row[key])
    if key == "model":
        return f'<th scope="row" data-column="model">{text}</th>'
    if key != "state":
        return f'<td data-column="{escape(key)}">{text}</td>'
    status = worker.status
    bar = ""
    if status.state is WorkerState.LOADING and status.progress is not None:
        phase, fraction = escape(status.progress.phase), status.progress.fraction
        bar = (
            f'<small>{phase} <progress value="{fraction:.3f}" aria-label="{phase}"></progress>'
            "</small>"
        )
    return (
        f'<td data-column="state"><span class="state" data-state="{status.state.value}">{text}'
        f"</span>{bar}</td>"
    )


def _plots_html(view: FleetView, history: ClusterHistory, words: Words) -> str:
    figures = []
    named = [(w.status.models[0].name, w.address, w) for w in view.workers if w.status.models]
    for name, _, worker in sorted(named, key=lambda each: each[:2]):  # the table's order
        points = history.of(worker.worker_id)
        if len(points) < 2:
            continue
        for label, values, last in (
            (words("running"), [p.running + p.waiting for p in points], str(points[-1].running)),
            (
                words("tokens/s"),
                [p.tokens_per_second for p in points],
                f"{points[-1].tokens_per_second:.1f}",
            ),
            (
                words("memory"),
                [p.memory_bytes for p in points],
                size(points[-1].memory_bytes),
            ),
        ):
            figures.append(_plot_html(f"{name}: {label}", values, last))
    if not figures:
        return ""
    title = escape(words("The last ten minutes"))
    return f'<h2>{title}</h2><div class="plots">{"".join(figures)}</div>'


def _plot_html(label: str, values: list[int] | list[float], last: str) -> str:
    top = max(*values, 1e-9)
    # The newest point at the right edge; a young worker's line begins later.
    first = _POINTS - len(values)
    line = " ".join(f"{first + x},{42 - 40 * value / top:.1f}" for x, value in enumerate(values))
    return (
        f"<figure><figcaption><span>{escape(label)}</span><b>{escape(last)}</b></figcaption>"
        f'<svg viewBox="0 0 {_POINTS - 1} 44" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline points="{line}"/></svg></figure>'
    )
