"""Our worker with LLaVA's and FastChat's programs: their pages, scripts and controllers."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest
from PIL import Image

from tests.engine.fake_model import FakeModel
from tests.legacy_peers import LlavaController, LlavaPage, read_stream, serving
from tests.waiting import until
from tests.worker.servers import FakeController, RunningWorker, running_worker

pytestmark = pytest.mark.anyio


def picture(*, uri: bool = False) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(stream, "PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/png;base64,{encoded}" if uri else encoded


async def frames(running: RunningWorker, **params: Any) -> list[dict[str, Any]]:
    reply = await running.client.post("/worker_generate_stream", json={"model": "fake", **params})
    assert reply.status_code == 200
    assert "content-type" not in reply.headers
    return await read_stream(reply)


async def test_llavas_page_gets_cumulative_text_after_its_prompt() -> None:
    async with running_worker() as running:
        page = LlavaPage(running.url, running.client)
        shown = await page.ask(running.url, "hi", "fake")
    assert shown[-1] == "You said: hi"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))


async def test_fastchats_clients_get_no_echo_a_reason_and_usage() -> None:
    async with running_worker() as running:
        found = await frames(
            running,
            prompt="hi",
            echo=False,
            temperature=0.7,
            repetition_penalty=1.0,
            top_p=1.0,
            top_k=-1.0,
            max_new_tokens=1_048_576,
            stop=None,
            stop_token_ids=None,
        )
    assert found[0]["text"] == ""  # at once, while nothing is known yet
    assert found[-2]["finish_reason"] is None
    assert found[-1]["finish_reason"] == "stop"
    assert found[-1]["text"] == found[-2]["text"] == "You said: hi"
    assert set(found[-1]["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


@pytest.mark.parametrize("stop", [" ", "", "\n", [" ", ""]])
async def test_a_stop_of_spaces_ends_nothing(stop: Any) -> None:
    # LLaVA's test_message.py sends stop=" ", and its worker eats every space for it.
    async with running_worker() as running:
        found = await frames(running, prompt="a b", stop=stop)
    assert found[-1]["text"] == "a bYou said: a b"


async def test_a_stop_string_ends_the_answer_before_it() -> None:
    async with running_worker() as running:
        found = await frames(running, prompt="hi", stop="said", echo=False)
    assert found[-1]["text"] == "You "
    assert found[-1]["finish_reason"] == "stop"


async def test_fastchats_throughput_script_reads_the_last_frame_but_one_piece() -> None:
    async with running_worker() as running:
        reply = await running.client.post(
            "/worker_generate_stream",
            json={"model": "fake", "prompt": "hi", "max_new_tokens": 5, "temperature": 0.0},
        )
        assert b"You s" in reply.content.split(b"\0")[-2]


@pytest.mark.parametrize("uri", [True, False])
@pytest.mark.parametrize(
    "prompt", ["<image>\nhi", "$$<image>$$\nhi", "$$<image>$$<image>\nhi"], ids=str
)
async def test_images_come_with_any_programs_marker(prompt: str, uri: bool) -> None:
    async with running_worker() as running:
        found = await frames(running, prompt=prompt, images=[picture(uri=uri)])
    # The model gets one marker for one image; the client its own prompt back.
    assert found[-1]["text"] == prompt + "You said: <image>\nhi"
    assert found[-1]["usage"]["prompt_tokens"] == 2 + 4


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"prompt": "x", "model": "other"}, "serves 'fake'"),
        ({"prompt": "x", "images": ["no picture"]}, "image"),
        ({"prompt": "x", "images": ["http://169.254.169.254/"]}, "image"),
        ({"prompt": "x", "images": ["file:///etc/passwd"]}, "image"),
        ({"prompt": "x", "images": ["/etc/passwd"]}, "image"),
        ({"model": "fake"}, "prompt"),
        ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "word " * 1000}, "tokens"),
    ],
)
async def test_what_goes_wrong_is_one_frame_with_a_code_and_its_cause(
    params: dict[str, Any], reason: str
) -> None:
    async with running_worker() as running:
        found = [frame for frame in await frames(running, **params) if frame["error_code"]]
        assert len(found) == 1
        assert reason in found[0]["text"]
        assert "NETWORK ERROR" not in found[0]["text"]
        # One bad request harms no later one: theirs could kill the worker.
        assert (await frames(running, prompt="hi"))[-1]["error_code"] == 0


async def test_a_failure_midway_is_the_last_frame() -> None:
    model = FakeModel(error=RuntimeError("boom"), error_after=3)
    async with running_worker(model) as running:
        found = await frames(running, prompt="hi", echo=False)
    assert found[-1]["error_code"] == 1
    assert [frame["error_code"] for frame in found[:-1]] == [0] * (len(found) - 1)


async def test_who_waits_gets_its_text_again_within_a_legacy_controllers_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.routes.legacy_stream.KEEP_ALIVE_SECONDS", 0.05)
    model = FakeModel(gate=threading.Event())
    async with (
        running_worker(model) as running,
        running.client.stream(
            "POST", "/worker_generate_stream", json={"model": "fake", "prompt": "hi"}
        ) as reply,
    ):
        pieces = reply.aiter_raw()
        early = [await anext(pieces) for _ in range(3)]
        model.gate.set()
        rest = b"".join([piece async for piece in pieces])
    assert set(early) == {b'{"text": "hi", "error_code": 0}\0'}
    assert b"You said: hi" in rest


async def test_a_legacy_client_that_hangs_up_ends_its_answer() -> None:
    model = FakeModel(answer=lambda _: "x" * 900, step_seconds=0.05)
    async with running_worker(model) as running:
        async with running.client.stream(
            "POST", "/worker_generate_stream", json={"model": "fake", "prompt": "hi"}
        ) as reply:
            pieces = reply.aiter_raw()
            await anext(pieces)
            await until(lambda: model.steps > 2)
            await pieces.aclose()
        await until(lambda: running.engine.stats().running == 0)
        assert model.steps < 900


async def test_fastchats_api_server_finds_what_it_asks_for() -> None:
    async with running_worker() as running:

        async def ask(path: str, **body: Any) -> Any:
            return (await running.client.post(path, json={"model": "fake", **body})).json()

        whole = await ask("/worker_generate", prompt="hi", echo=False)
        assert whole["text"] == "You said: hi"
        assert whole["error_code"] == 0
        assert whole["finish_reason"] == "stop"
        assert whole["usage"]["completion_tokens"] > 0
        assert await ask("/count_token", prompt="one two three") == {"count": 3, "error_code": 0}
        assert await ask("/model_details") == {"context_length": 1000}
        failed = await ask("/worker_generate", prompt="hi", max_new_tokens=-5)
        assert failed["error_code"] == 1
        template = await running.client.post("/worker_get_conv_template", json={"model": "fake"})
        assert template.status_code == 400  # it has none that FastChat has words for
        embeddings = await running.client.post("/worker_get_embeddings", json={"input": ["x"]})
        assert embeddings.status_code == 404


async def test_the_status_is_what_a_legacy_controller_asks_for() -> None:
    async with running_worker() as running:
        reply = await running.client.post("/worker_get_status")
        assert reply.json() == {"model_names": ["fake"], "speed": 1.0, "queue_length": 0}
        running.worker.lifecycle.begin_drain()
        assert (await running.client.post("/worker_get_status")).status_code == 503


async def test_a_worker_joins_a_legacy_controller_once_it_is_ready_and_rejoins() -> None:
    controller, may_load = LlavaController(), threading.Event()
    async with serving(controller.app) as url:
        async with running_worker(
            controllers=(url,),
            wait_until_ready=False,
            before_load=lambda _: may_load.wait(60),
        ) as running:
            await until(lambda: running.worker._registration._leases[0].is_legacy)
            assert controller.workers == {}  # their controllers would send it requests
            may_load.set()
            await until(lambda: running.url in controller.workers)
            assert controller.workers[running.url]["model_names"] == ["fake"]
            controller.forgets = True
            await until(lambda: not controller.forgets)
            await until(lambda: running.url in controller.workers)
            page = LlavaPage(url, running.client)
            assert await page.address("fake") == running.url
            assert (await page.ask(url, "hi", "fake"))[-1] == "You said: hi"
        assert controller.beats


async def test_a_legacy_controller_that_went_away_holds_up_no_request() -> None:
    # LLaVA's worker answers nobody, not even its own status, until its controller is back.
    controller = LlavaController()
    async with AsyncExitStack() as stack:
        async with serving(controller.app) as url:
            running = await stack.enter_async_context(running_worker(controllers=(url,)))
            await until(lambda: running.url in controller.workers)
        async with asyncio.timeout(20):
            assert (await frames(running, prompt="hi"))[-1]["text"] == "hiYou said: hi"
            assert (await running.client.post("/worker_get_status")).status_code == 200


async def test_where_a_legacy_controller_was_one_of_ours_may_be_next() -> None:
    legacy, ours = LlavaController(), FakeController()
    async with AsyncExitStack() as stack:
        async with serving(legacy.app) as url:
            running = await stack.enter_async_context(running_worker(controllers=(url,)))
            await until(lambda: running.url in legacy.workers)
        async with serving(ours.app, int(url.rpartition(":")[2])):
            await until(lambda: ours.calls)
            assert ours.calls[0][0] == "register"
