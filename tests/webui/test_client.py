"""The page's client against a server on a real port: chunks, errors, hang-ups, silence."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tests.ports import free_port
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, eventually
from webui.catalogue import catalogue_of
from webui.client import ControllerClient
from webui.controller_error import ControllerError
from webui.watch import FleetWatch

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeController, str]]:
    fake = FakeController()
    with ThreadedServer(fake.app()) as server:
        yield fake, server.url


@pytest.fixture
def fake(served: tuple[FakeController, str]) -> FakeController:
    served[0].models = demo_models(pieces_per_second=500)
    served[0].exchanges = []
    return served[0]


@pytest.fixture
async def client(served: tuple[FakeController, str]) -> AsyncIterator[ControllerClient]:
    opened = ControllerClient(served[1], silence_seconds=60)
    yield opened
    await opened.aclose()


def _body(model: str = "demo-llava") -> bytes:
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": model, "messages": messages, "stream": True}).encode()


async def _text(client: ControllerClient, body: bytes) -> str:
    async with aclosing(client.chat(body)) as chunks:
        return "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])


async def test_an_answer_arrives_whole_with_usage_and_metrics(
    client: ControllerClient, fake: FakeController
) -> None:
    chunks = [chunk async for chunk in client.chat(_body())]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == fake.models["demo-llava"].answer
    assert chunks[-1].usage is not None
    assert chunks[-1].metrics is not None


async def test_closing_the_iterator_hangs_up(
    client: ControllerClient, fake: FakeController
) -> None:
    fake.models["demo-llava"].answer = "word " * 10_000
    async with aclosing(client.chat(_body())) as chunks:
        async for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                break
    [exchange] = fake.exchanges
    await asyncio.to_thread(eventually, lambda: exchange.was_hung_up)


async def test_cancelling_the_reader_hangs_up(
    client: ControllerClient, fake: FakeController
) -> None:
    fake.models["demo-llava"].fault = "hang"
    task = asyncio.create_task(_text(client, _body()))
    await asyncio.to_thread(eventually, lambda: fake.exchanges)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(eventually, lambda: fake.exchanges[0].was_hung_up)


@pytest.mark.parametrize(
    ("model", "fault", "code", "words"),
    [
        ("nobody", None, "model_not_found", "nobody"),
        ("demo-llava", "refuse", "queue_full", "queue of this worker is full"),
        ("demo-llava", "error_midway", "worker_lost", "lost in mid-answer"),
        ("demo-llava", "break_midway", "stream_broken", "Ask again"),
    ],
)
async def test_each_failure_has_its_cause_and_a_code(
    client: ControllerClient, fake: FakeController, model: str, fault: str, code: str, words: str
) -> None:
    fake.models["demo-llava"].fault = fault  # type: ignore[assignment]  # one of the literals
    with pytest.raises(ControllerError) as caught:
        await _text(client, _body(model))
    assert caught.value.code == code
    assert words in caught.value.message


async def test_when_to_try_again_is_passed_on(
    client: ControllerClient, fake: FakeController
) -> None:
    fake.models["demo-llava"].is_live = False
    with pytest.raises(ControllerError) as caught:
        await _text(client, _body())
    assert caught.value.code == "no_live_worker"
    assert caught.value.retry_after_seconds == 1


async def test_a_silent_stream_is_given_up_with_a_reason(
    served: tuple[FakeController, str], fake: FakeController
) -> None:
    fake.models["demo-llava"].fault = "hang"
    client = ControllerClient(served[1], silence_seconds=0.3)
    with pytest.raises(ControllerError, match=r"No sign of life for 0\.3 s"):
        await _text(client, _body())
    await client.aclose()


async def test_a_controller_that_is_down_is_named_with_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    client = ControllerClient(url)
    for attempt in (client.fleet(), _text(client, _body())):
        with pytest.raises(ControllerError) as caught:
            await attempt
        assert caught.value.code == "unreachable"
        assert url in caught.value.message
        assert "nothing accepts connections there" in caught.value.message
    await client.aclose()


async def test_the_next_controller_is_asked_where_one_cannot_be_reached(
    served: tuple[FakeController, str], fake: FakeController
) -> None:
    away = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    for ask in (ControllerClient.fleet, lambda client: _text(client, _body())):
        client = ControllerClient(away[0], others=[away[1], served[1]])
        assert await ask(client)
        assert client.base_url == served[1]  # and is asked first from now on
        await client.aclose()


async def test_which_controller_answers_is_logged_when_it_is_another(
    served: tuple[FakeController, str], fake: FakeController, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadedServer(FakeController(demo_models(pieces_per_second=500)).app()) as second:
        client = ControllerClient(served[1], others=[second.url])
        watch = FleetWatch(client, interval_seconds=60)
        with caplog.at_level("INFO", logger="webui.watch"):
            await watch.refresh()
            client._addresses.pass_over(served[1])  # as where it cannot be reached
            await watch.refresh()
            await watch.refresh()
    assert [record.message for record in caplog.records] == [
        f"the controller at {url} answers" for url in (served[1], second.url)
    ]
    await client.aclose()


async def test_a_controller_that_hangs_is_passed_over_at_the_next_look(
    served: tuple[FakeController, str], fake: FakeController
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = ControllerClient(url, others=[served[1]])
        with pytest.raises(ControllerError, match="it does not answer"):
            await client.fleet()
        assert (await client.fleet()).workers
        await client.aclose()


async def test_a_worker_is_drained_at_each_controller() -> None:
    def controller(*known: str) -> FastAPI:
        app = FastAPI()

        @app.post("/fleet/drain")
        async def drain(request: Request) -> Response:
            worker_id = (await request.json())["worker_id"]
            drained.append(worker_id)
            return JSONResponse({"known": worker_id in known})

        return app

    drained: list[str] = []
    with ThreadedServer(controller()) as first, ThreadedServer(controller("w1")) as second:
        away = f"http://127.0.0.1:{free_port()}"
        client = ControllerClient(first.url, others=[away, second.url])
        assert await client.drain("w1", admin_key="")
        assert drained == ["w1", "w1"]
        assert not await client.drain("w2", admin_key="")
        await client.aclose()


async def test_where_none_can_be_reached_all_are_named() -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    client = ControllerClient(urls[0], others=urls[1:])
    with pytest.raises(ControllerError, match=f"{urls[0]}, {urls[1]} cannot be reached"):
        await _text(client, _body())
    await client.aclose()


async def test_a_server_that_is_no_controller_is_not_taken_for_one() -> None:
    app = FastAPI()

    @app.get("/fleet/workers")
    async def workers() -> Response:
        return JSONResponse({"hello": "world"})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        if (await request.json())["model"] == "half":
            return StreamingResponse(iter([b'data: {"no": "chunk"}\n\n']))
        return Response("<html>Bad gateway</html>", status_code=502)

    with ThreadedServer(app) as server:
        client = ControllerClient(server.url)
        with pytest.raises(ControllerError, match="check --controller-url"):
            await client.fleet()
        with pytest.raises(ControllerError, match=r"HTTP 502 .* <html>Bad gateway"):
            await _text(client, _body())
        with pytest.raises(ControllerError, match="no chat completion chunk"):
            await _text(client, _body("half"))
        await client.aclose()


async def test_a_stream_that_ends_without_its_mark_is_not_a_whole_answer() -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        return StreamingResponse(iter([b": ping\n\n"]))

    with ThreadedServer(app) as server:
        client = ControllerClient(server.url)
        with pytest.raises(ControllerError, match="without an end mark"):
            await _text(client, _body())
        await client.aclose()


async def test_the_key_goes_to_the_controller() -> None:
    app = FastAPI()
    seen: list[str | None] = []

    @app.get("/fleet/workers")
    async def workers(request: Request) -> dict[str, list[str]]:
        seen.append(request.headers.get("authorization"))
        return {"workers": []}

    with ThreadedServer(app) as server:
        for key in (None, "sesame"):
            client = ControllerClient(server.url, api_key=key)
            await client.fleet()
            await client.aclose()
    assert seen == [None, "Bearer sesame"]


async def test_the_watch_keeps_the_last_models_and_says_what_is_wrong(
    client: ControllerClient, fake: FakeController
) -> None:
    watch = FleetWatch(client, interval_seconds=60)
    assert watch.catalogue.problem is not None
    await watch.refresh()
    assert watch.catalogue.problem is None
    assert [model.name for model in watch.catalogue.models] == list(fake.models)
    assert watch.catalogue == catalogue_of(await client.fleet())
    down = FleetWatch(ControllerClient(f"http://127.0.0.1:{free_port()}"), interval_seconds=60)
    down.catalogue = watch.catalogue
    await down.refresh()
    assert down.catalogue.models == watch.catalogue.models
    assert "cannot be reached" in (down.catalogue.problem or "")


async def test_a_fixed_list_of_models_is_that_of_the_first_answer_that_names_any(
    client: ControllerClient, fake: FakeController
) -> None:
    names = list(fake.models)
    models = dict(fake.models)
    fake.models.clear()
    once = FleetWatch(client, interval_seconds=60, is_list_fixed=True)
    live = FleetWatch(client, interval_seconds=60)
    for present in ([], names[:2], names[1:]):
        fake.models = {name: models[name] for name in present}
        await once.refresh()
        await live.refresh()
        assert list(live.catalogue.offered) == present
    assert list(once.catalogue.offered) == names[:2]
    # What a column shows of its model is the fleet's word, in either mode.
    assert [model.name for model in once.catalogue.models] == names[1:]
