"""Requests through a real controller to mock workers over real sockets."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest

from controller.breaker import ERRORS_IN_A_ROW
from controller.protocol.errors import (
    BadImageError,
    DrainingError,
    InternalError,
    QueueFullError,
    WorkerLostError,
)
from controller.protocol.fleet import WorkerLoad, WorkerState
from tests.controller.conftest import Fleet, question, running_controller
from tests.controller.mock_worker import WORDS, Fault, MockWorker, Script
from tests.waiting import until

pytestmark = pytest.mark.anyio


def text_of(events: list) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if event.data != "[DONE]" and event.event != "error"
        for choice in json.loads(event.data)["choices"]
    )


async def test_the_openai_client_gets_a_whole_answer(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.openai() as client:
        answer = await client.chat.completions.create(**question())
    assert answer.choices[0].message.content == "Two red squares."
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7


async def test_the_openai_client_gets_a_stream_word_by_word_with_usage(fleet: Fleet) -> None:
    await fleet.worker()
    async with fleet.openai() as client:
        stream = await client.chat.completions.create(
            **question(), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    words = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert words == list(WORDS)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None


async def test_words_arrive_when_the_worker_says_them(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(words=["a"] * 1000, word_seconds=0.05))
    async with fleet.client.stream(
        "POST", "/v1/chat/completions", json=question(stream=True)
    ) as reply:
        pieces = reply.aiter_raw()
        await anext(pieces)
        assert worker.open_answers == 1  # 50 s of answer are still to come
        await pieces.aclose()


async def test_the_body_reaches_the_worker_byte_for_byte(fleet: Fleet) -> None:
    worker = await fleet.worker()
    body = (
        b'{"model" :"demo",\n "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}], "n":1e0}'
    )
    await fleet.post(body)
    assert worker.received[0].body == body
    assert worker.received[0].path == "/v1/chat/completions"


async def test_a_stream_reaches_the_client_byte_for_byte(fleet: Fleet) -> None:
    worker = await fleet.worker()
    through = await fleet.ask(stream=True)
    async with httpx.AsyncClient() as client:
        direct = await client.post(
            f"{worker.address}/v1/chat/completions", json=question(stream=True)
        )
    assert through.content == direct.content


async def test_the_request_id_is_the_clients_and_the_worker_is_named(fleet: Fleet) -> None:
    worker = await fleet.worker("w-7")
    reply = await fleet.client.post(
        "/v1/chat/completions", json=question(), headers={"x-request-id": "mine-1"}
    )
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["x-worker-id"] == "w-7"
    assert worker.received[0].headers["x-request-id"] == "mine-1"


async def test_trace_context_passes_and_the_clients_key_does_not(fleet: Fleet) -> None:
    worker = await fleet.worker()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await fleet.client.post(
        "/v1/chat/completions",
        json=question(),
        headers={"traceparent": trace, "authorization": "Bearer secret"},
    )
    assert worker.received[0].headers["traceparent"] == trace
    assert "authorization" not in worker.received[0].headers


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
async def test_a_stream_in_any_pieces_is_forwarded_whole(fleet: Fleet, newline: bytes) -> None:
    await fleet.worker(script=Script(newline=newline, piece_bytes=7))
    _, events = await fleet.stream()
    assert text_of(events) == "Two red squares."
    assert events[-1].data == "[DONE]"


async def test_a_five_megabyte_image_passes(fleet: Fleet) -> None:
    worker = await fleet.worker()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000_000}}
    body = question(messages=[{"role": "user", "content": [image]}])
    reply = await fleet.client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200
    assert len(worker.received[0].body) > 5_000_000


# What cannot be routed


async def test_an_unknown_model_is_a_404_that_names_the_live_ones(fleet: Fleet) -> None:
    await fleet.worker(models=["alpha", "beta"])
    reply = await fleet.ask("gamma")
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert error["code"] == "model_not_found"
    assert "'gamma'" in error["message"]
    assert "alpha, beta" in error["message"]


async def test_the_openai_client_raises_its_own_not_found(fleet: Fleet) -> None:
    async with fleet.openai() as client:
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**question("gamma"))


async def test_a_model_whose_worker_left_is_a_503_with_retry_after(fleet: Fleet) -> None:
    worker = await fleet.worker()
    await fleet.client.post("/fleet/drain", json={"worker_id": worker.worker_id})
    reply = await fleet.ask()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "no_live_worker"
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_loading_model_is_a_503_that_says_how_far_it_is(fleet: Fleet) -> None:
    mock = await fleet.stack.enter_async_context(MockWorker())
    await fleet.register(
        mock,
        state=WorkerState.LOADING,
        progress={"phase": "vision tower", "fraction": 0.4},
    )
    reply = await fleet.ask()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "model_loading"
    assert "vision tower, 40% done" in reply.json()["error"]["message"]
    assert "retry-after" in reply.headers


async def test_a_failed_worker_is_a_503_that_says_why(fleet: Fleet) -> None:
    mock = await fleet.stack.enter_async_context(MockWorker())
    await fleet.register(mock, state=WorkerState.FAILED, detail="no file config.json")
    reply = await fleet.ask()
    assert reply.status_code == 503
    assert "no file config.json" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"demo"', "must be a JSON object"),
        (b"{}", "model must be the name of a model"),
        (b'{"model": 7}', "not a number"),
        (b'{"model": ""}', "an empty string"),
        (b'{"model": null}', "not null"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
async def test_what_names_no_model_is_a_400_that_says_so(
    fleet: Fleet, body: bytes, reason: str
) -> None:
    reply = await fleet.post(body)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert reason in reply.json()["error"]["message"]


async def test_a_body_that_does_not_say_it_is_json_is_a_400(fleet: Fleet) -> None:
    # A web page can make a browser post text anywhere without asking; not so JSON.
    await fleet.worker()
    reply = await fleet.client.post(
        "/v1/chat/completions",
        content=json.dumps(question()),
        headers={"content-type": "text/plain"},
    )
    assert reply.status_code == 400
    assert "application/json" in reply.json()["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(chunked: bool) -> None:
    async def pieces():
        for _ in range(4):
            yield b"x" * 1000

    async with running_controller(max_body_bytes=2048) as fleet:
        content = pieces() if chunked else b"x" * 4000
        reply = await fleet.post(content)
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "payload_too_large"
        assert (await fleet.client.get("/health")).status_code == 200


async def test_a_body_that_does_not_arrive_is_a_408_and_blocks_nobody() -> None:
    async def trickle():
        yield b"{"
        await asyncio.sleep(1.6)
        yield b"}"

    async with running_controller(body_seconds=0.8) as fleet:
        await fleet.worker()
        slow = [asyncio.create_task(fleet.post(trickle())) for _ in range(20)]
        assert (await fleet.ask()).status_code == 200
        for reply in await asyncio.gather(*slow):
            assert reply.status_code == 408
            assert reply.json()["error"]["code"] == "request_timeout"


async def test_embeddings_are_an_honest_404(fleet: Fleet) -> None:
    reply = await fleet.client.post("/v1/embeddings", json={"model": "demo", "input": "x"})
    assert reply.status_code == 404
    assert "no embedding models" in reply.json()["error"]["message"]


# What the worker says itself


async def test_a_workers_400_passes_as_it_is(fleet: Fleet) -> None:
    refusal = BadImageError("image 1 is not an image", param="messages.0.content.1")
    await fleet.worker(script=Script(refusal=refusal))
    reply = await fleet.ask(stream=True)
    assert reply.status_code == 400
    assert reply.json() == refusal.body().model_dump()
    assert await fleet.models() == ["demo"]


async def test_a_worker_that_answers_errors_alone_does_not_draw_what_others_could_answer(
    fleet: Fleet,
) -> None:
    await fleet.worker("broken", script=Script(refusal=InternalError("a dead device")))
    await fleet.worker("sound")
    statuses = [(await fleet.ask()).status_code for _ in range(40)]
    # No heartbeat has come since the last of them, so that it was not tried again.
    assert statuses.count(500) == ERRORS_IN_A_ROW
    assert statuses.count(200) == 40 - ERRORS_IN_A_ROW


async def test_a_single_error_passes_and_is_not_asked_of_another(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(refusal=InternalError("this request")))
    reply = await fleet.ask()
    assert reply.status_code == 500
    assert len(worker.received) == 1
    assert await fleet.models() == ["demo"]


async def test_a_refusal_is_no_answer_in_the_times_that_are_counted(fleet: Fleet) -> None:
    await fleet.worker(script=Script(refusal=BadImageError("image 1 is not an image")))
    await fleet.ask()
    assert "time_to_first_token_seconds_count" not in (await fleet.client.get("/metrics")).text


async def test_who_has_lost_the_worker_behind_it_is_passed_over(fleet: Fleet) -> None:
    lost = WorkerLostError("it went away")
    first = await fleet.worker("a", script=Script(refusal=lost))
    await fleet.worker("b", load=WorkerLoad(running=50))
    assert (await fleet.ask()).headers["x-worker-id"] == "b"
    assert len(first.received) == 1


async def test_a_full_workers_request_goes_to_another(fleet: Fleet) -> None:
    full = QueueFullError("queue is full", retry_after_seconds=9)
    first = await fleet.worker("a", script=Script(refusal=full))
    await fleet.worker("b", load=WorkerLoad(running=50))
    reply = await fleet.ask()
    assert reply.status_code == 200
    assert reply.headers["x-worker-id"] == "b"
    assert len(first.received) == 1


async def test_when_all_are_full_the_429_passes_with_its_retry_after(fleet: Fleet) -> None:
    full = QueueFullError("queue is full", retry_after_seconds=9)
    for name in ("a", "b"):
        await fleet.worker(name, script=Script(refusal=full))
    reply = await fleet.ask()
    assert reply.status_code == 429
    assert reply.json()["error"]["code"] == "queue_full"
    assert reply.headers["retry-after"] == "9"
    assert await fleet.models() == ["demo"]


async def test_a_draining_workers_request_goes_to_another(fleet: Fleet) -> None:
    leaving = DrainingError("shutting down", retry_after_seconds=5)
    await fleet.worker("a", script=Script(refusal=leaving))
    await fleet.worker("b", load=WorkerLoad(running=50))
    reply = await fleet.ask()
    assert reply.headers["x-worker-id"] == "b"


async def test_a_workers_error_event_passes_and_nothing_is_added(fleet: Fleet) -> None:
    await fleet.worker(script=Script(error_event=InternalError("device lost")))
    _, events = await fleet.stream()
    assert [event.event for event in events].count("error") == 1
    assert "device lost" in events[-1].data


# Lost workers

BEFORE_ANYTHING = [Fault.AT_BYTE_ZERO, Fault.AFTER_HEADERS, Fault.AFTER_PING]


@pytest.mark.parametrize("fault", BEFORE_ANYTHING)
async def test_before_the_first_word_another_worker_takes_over(fleet: Fleet, fault: Fault) -> None:
    dying = await fleet.worker("a", script=Script(fault=fault))
    await fleet.worker("b", load=WorkerLoad(running=50))
    _, events = await fleet.stream()
    assert len(dying.received) == 1
    assert text_of(events) == "Two red squares."
    assert events[-1].data == "[DONE]"


async def test_a_refused_connection_is_not_noticed_by_the_client(fleet: Fleet) -> None:
    gone = await fleet.worker("a")
    await fleet.worker("b", load=WorkerLoad(running=50))
    await gone.die()
    reply = await fleet.ask()
    assert reply.status_code == 200
    assert reply.headers["x-worker-id"] == "b"


@pytest.mark.parametrize("fault", [Fault.AFTER_HEADERS, Fault.MID_EVENT])
async def test_a_whole_answer_that_broke_off_comes_from_another_worker(
    fleet: Fleet, fault: Fault
) -> None:
    await fleet.worker("a", script=Script(fault=fault))
    await fleet.worker("b", load=WorkerLoad(running=50))
    reply = await fleet.ask()
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "Two red squares."


@pytest.mark.parametrize("fault", [Fault.AT_BYTE_ZERO, Fault.AFTER_HEADERS, Fault.MID_EVENT])
async def test_a_whole_answer_that_broke_off_for_good_is_a_502(fleet: Fleet, fault: Fault) -> None:
    await fleet.worker(script=Script(fault=fault))
    reply = await fleet.ask()
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "worker_lost"
    assert "mock-1" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault.MID_EVENT, "Two red"),
        (Fault.CLEAN_CLOSE, "Two red"),
        (Fault.BEFORE_DONE, "Two red squares."),
    ],
)
async def test_after_the_first_word_a_lost_worker_is_an_error_event_and_no_done(
    fleet: Fleet, fault: Fault, text: str
) -> None:
    await fleet.worker("a", script=Script(fault=fault))
    other = await fleet.worker("b", load=WorkerLoad(running=50))
    _, events = await fleet.stream()
    assert text_of(events) == text
    assert events[-1].event == "error"
    assert json.loads(events[-1].data)["error"]["code"] == "worker_lost"
    assert not any(event.data == "[DONE]" for event in events)
    assert other.received == []
    reply = await fleet.ask()
    assert reply.headers["x-worker-id"] == "b"


async def test_the_openai_client_raises_on_a_lost_worker_after_the_text_so_far(
    fleet: Fleet,
) -> None:
    await fleet.worker(script=Script(fault=Fault.MID_EVENT))
    words = []
    async with fleet.openai() as client:
        stream = await client.chat.completions.create(**question(), stream=True)
        with pytest.raises(openai.APIError, match="went away"):  # noqa: PT012  # raised midway
            async for chunk in stream:
                words.append(chunk.choices[0].delta.content)  # noqa: PERF401  # what came so far
    assert words[1:] == ["Two", " red"]


async def test_a_worker_lost_after_done_was_not_missed(fleet: Fleet) -> None:
    await fleet.worker(script=Script(fault=Fault.BEFORE_TERMINATOR))
    _, events = await fleet.stream()
    assert events[-1].data == "[DONE]"
    assert all(event.event != "error" for event in events)


async def test_when_all_workers_are_lost_after_a_ping_the_stream_ends_with_an_error(
    fleet: Fleet,
) -> None:
    await fleet.worker(script=Script(fault=Fault.AFTER_PING))
    reply, events = await fleet.stream()
    assert reply.status_code == 200
    assert [event.event for event in events] == ["error"]
    assert json.loads(events[0].data)["error"]["code"] == "worker_lost"


async def test_no_more_workers_are_tried_than_the_budget_allows() -> None:
    async with running_controller(relay_attempts=2) as fleet:
        workers = [
            await fleet.worker(name, script=Script(fault=Fault.AT_BYTE_ZERO)) for name in "abcd"
        ]
        reply = await fleet.ask()
        assert reply.status_code == 502
        assert sum(len(worker.received) for worker in workers) == 2


async def test_a_dead_workers_model_leaves_the_list_with_the_first_failed_request(
    fleet: Fleet,
) -> None:
    worker = await fleet.worker()
    await worker.die()
    assert await fleet.models() == ["demo"]
    reply = await fleet.ask()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "no_live_worker"
    assert await fleet.models() == []


async def test_a_heartbeat_puts_a_suspect_back_at_once(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(fault=Fault.AT_BYTE_ZERO))
    await fleet.ask()
    assert await fleet.models() == []
    worker.script.fault = None
    await fleet.heartbeat(worker)
    assert await fleet.models() == ["demo"]
    assert (await fleet.ask()).status_code == 200


async def test_a_restarted_worker_is_routed_to_at_once(fleet: Fleet) -> None:
    first = await fleet.worker("first")
    await first.die()
    assert (await fleet.ask()).status_code == 503
    await fleet.worker("second", port=first.port)
    reply = await fleet.ask()
    assert reply.headers["x-worker-id"] == "second"


# Clients that go, or do not read


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_stops_the_worker(fleet: Fleet, stream: bool) -> None:
    worker = await fleet.worker(script=Script(words=["a"] * 10_000, word_seconds=0.02))
    asking = asyncio.create_task(fleet.ask(stream=stream))
    await until(lambda: worker.received)
    await asyncio.sleep(0.1)
    asking.cancel()
    async with asyncio.timeout(60):
        await worker.hung_up.wait()
    assert await fleet.models() == ["demo"]  # not the worker's fault


async def test_a_client_that_hangs_up_while_the_worker_says_nothing_stops_it(fleet: Fleet) -> None:
    worker = await fleet.worker(script=Script(fault=Fault.HANG))
    asking = asyncio.create_task(fleet.ask(stream=True))
    await until(lambda: worker.received)
    asking.cancel()
    async with asyncio.timeout(60):
        await worker.hung_up.wait()


async def test_a_hang_up_ends_no_stream_but_its_own(fleet: Fleet) -> None:
    await fleet.worker(script=Script(words=["a"] * 20, word_seconds=0.02))
    # Sequential requests first, so that the connections to the worker are pooled ones.
    await fleet.ask()
    staying = [asyncio.create_task(fleet.stream()) for _ in range(8)]
    leaving = [asyncio.create_task(fleet.stream()) for _ in range(8)]
    await asyncio.sleep(0.15)
    for task in leaving:
        task.cancel()
    for _, events in await asyncio.gather(*staying):
        assert text_of(events) == "a" * 20
        assert events[-1].data == "[DONE]"


async def test_a_reader_that_does_not_read_stops_the_worker_and_not_the_others(
    fleet: Fleet,
) -> None:
    flood = await fleet.worker("flood", script=Script(endless_bytes=16_384), models=["flood"])
    await fleet.worker("other", models=["other"])
    async with fleet.client.stream(
        "POST", "/v1/chat/completions", json=question("flood", stream=True)
    ) as reply:
        assert reply.status_code == 200
        written = -1
        async with asyncio.timeout(60):
            while flood.bytes_written > written:  # until all buffers on the way are full
                written = flood.bytes_written
                await asyncio.sleep(0.5)
        assert written < 64 * 1024 * 1024
        assert (await fleet.ask("other")).status_code == 200
    async with asyncio.timeout(60):
        await flood.hung_up.wait()


async def test_connections_to_a_worker_are_used_again(fleet: Fleet) -> None:
    worker = await fleet.worker()
    for _ in range(5):
        await fleet.ask()
        await fleet.stream()
    assert len(worker.received) == 10
    assert len(worker._connections) == 1


async def test_two_workers_share_simultaneous_requests(fleet: Fleet) -> None:
    gate = asyncio.Event()
    workers = [await fleet.worker(name, script=Script(gate=gate)) for name in ("a", "b")]
    streams = [asyncio.create_task(fleet.stream()) for _ in range(10)]
    await until(lambda: sum(len(worker.received) for worker in workers) == 10)
    assert [len(worker.received) for worker in workers] == [5, 5]
    gate.set()
    await asyncio.gather(*streams)
