"""``POST /v1/preview`` of a worker: its answer, its errors, its bounds."""

from __future__ import annotations

import asyncio
import base64
import io
import threading

import pytest
from PIL import Image

from tests.engine.fake_model import FakeModel
from tests.waiting import until
from tests.worker.servers import question, running_worker
from worker.engine.queued import MAX_PREVIEWS
from worker.vision.policy import ImagePolicy

pytestmark = pytest.mark.anyio


def picture(width: int = 6, height: int = 4, colour: str = "red") -> dict:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


async def test_a_preview_has_the_prompt_and_each_image_as_the_encoder_gets_it():
    content = [{"type": "text", "text": "what is it"}, picture(), picture(3, 9)]
    async with running_worker() as running:
        reply = await running.client.post("/v1/preview", json=question(content))
    assert reply.status_code == 200
    assert reply.headers["x-worker-id"] == "worker-under-test"
    answer = reply.json()
    assert answer["object"] == "prompt.preview"
    assert (answer["model"], answer["prompt_tokens"], answer["image_tokens"]) == ("fake", 11, 8)
    assert [(image["width"], image["height"]) for image in answer["images"]] == [(6, 4), (3, 9)]
    assert answer["images"][0]["grid"] == {"rows": 1, "columns": 1}
    (tile,) = answer["images"][0]["tiles"]
    assert (tile["kind"], tile["width"], tile["height"]) == ("tile", 6, 4)
    data = base64.b64decode(tile["image_url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (255, 0, 0)


async def test_nothing_is_generated_for_a_preview():
    async with running_worker() as running:
        await running.client.post("/v1/preview", json=question([picture()]))
        assert running.model.started == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model": "fake"}, 400, "messages"),
        ({**question(), "model": "other"}, 404, "model"),
        (question(image_process_mode="upside-down"), 400, "image_process_mode"),
        (
            question([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]),
            400,
            "messages.0.content.0.image_url.url",
        ),
    ],
)
async def test_what_is_wrong_is_named(body, status, param):
    async with running_worker() as running:
        reply = await running.client.post("/v1/preview", json=body)
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == param


async def test_more_images_than_are_accepted_are_refused_before_any_is_decoded():
    async with running_worker(image_policy=ImagePolicy(max_images=2)) as running:
        broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}
        replies = [
            await running.client.post(path, json=question([broken] * 3))
            for path in ("/v1/preview", "/v1/chat/completions")
        ]
    for reply in replies:
        assert reply.status_code == 400
        assert "has 3 images; at most 2 are accepted" in reply.json()["error"]["message"]


async def test_previews_beyond_a_few_are_told_to_come_back():
    gate = threading.Event()
    async with running_worker(FakeModel(prepare_gate=gate)) as running:
        asked = [
            asyncio.create_task(running.client.post("/v1/preview", json=question()))
            for _ in range(MAX_PREVIEWS + 2)
        ]
        await until(lambda: sum(task.done() for task in asked) == 2)
        gate.set()
        replies = await asyncio.gather(*asked)
        later = await running.client.post("/v1/preview", json=question())
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == [200] * MAX_PREVIEWS + [429] * 2
    assert next(r for r in replies if r.status_code == 429).headers["retry-after"] == "1"
    assert later.status_code == 200


async def test_a_model_that_loads_has_no_previews_yet():
    loaded = threading.Event()
    async with running_worker(
        before_load=lambda on_progress: loaded.wait(60), wait_until_ready=False
    ) as running:
        reply = await running.client.post("/v1/preview", json=question())
        loaded.set()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "model_loading"


async def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    def unpack(_image):
        raise AssertionError("it was unpacked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", unpack)
    stream = io.BytesIO()
    Image.new("1", (8000, 8000)).save(stream, "PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    async with running_worker() as running:
        reply = await running.ask(content=[part])
    assert reply.status_code == 400
    assert "64000000 (8000 x 8000) pixels; at most 50000000" in reply.json()["error"]["message"]


async def test_remote_images_are_off_and_the_error_says_how_to_turn_them_on():
    part = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    async with running_worker() as running:
        reply = await running.client.post("/v1/preview", json=question([part]))
    assert reply.status_code == 400
    assert "start the worker with --allow-remote-images" in reply.json()["error"]["message"]
