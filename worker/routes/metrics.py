"""``GET /metrics``: the figures of this worker for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def metrics_routes(registry: CollectorRegistry) -> APIRouter:
    """The route, over the registry that it shows."""
    router = APIRouter(tags=["metrics"])

    @router.get("/metrics")
    async def show_metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
