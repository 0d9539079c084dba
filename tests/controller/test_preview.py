"""Previews through the controller: to the worker of the model, and back as they are."""

from __future__ import annotations

import asyncio
import base64
import io

import pytest
from PIL import Image

from tests.controller.conftest import Fleet
from tests.worker.servers import question, running_worker

pytestmark = pytest.mark.anyio


def picture() -> dict[str, object]:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(stream, "PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


async def test_a_preview_comes_from_the_models_worker(fleet: Fleet) -> None:
    body = question([{"type": "text", "text": "what is it"}, picture()])
    async with running_worker(controllers=(fleet.url,)) as running:
        async with asyncio.timeout(60):
            while not (await fleet.client.get("/v1/models")).json()["data"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        relayed = await fleet.client.post("/v1/preview", json=body)
        direct = await running.client.post("/v1/preview", json=body)
        wrong = await fleet.client.post("/v1/preview", json={**body, "image_process_mode": "?"})
    assert relayed.status_code == 200
    assert relayed.json() == direct.json()
    assert relayed.headers["x-worker-id"] == "worker-under-test"
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "image_process_mode"


async def test_a_preview_of_a_model_that_nobody_serves_is_a_404(fleet: Fleet) -> None:
    reply = await fleet.client.post("/v1/preview", json=question())
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"


async def test_both_documents_describe_previews(fleet: Fleet) -> None:
    async with running_worker() as running:
        documents = [
            (await client.get("/openapi.json")).json() for client in (fleet.client, running.client)
        ]
    for document in documents:
        operation = document["paths"]["/v1/preview"]["post"]
        reference = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert reference == "#/components/schemas/Preview"
        assert "PreviewImage" in document["components"]["schemas"]
