"""LLaVA's and FastChat's programs with our controller: their workers, pages and scripts."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from controller.breaker import ERRORS_IN_A_ROW
from tests.controller.conftest import Fleet, question, running_controller
from tests.controller.mock_worker import Fault, MockWorker, Script
from tests.controller.test_relay import text_of
from tests.legacy_peers import (
    FastChatWorker,
    LlavaController,
    LlavaPage,
    LlavaWorker,
    read_stream,
    serving,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio

PICTURE = "data:image/png;base64," + base64.b64encode(b"picture").decode()


async def joined(fleet: Fleet, worker: LlavaWorker, **more: Any) -> str:
    """A legacy worker that listens and has registered; its address."""
    address = await fleet.stack.enter_async_context(serving(worker.app))
    status = {"model_names": [worker.name], "speed": 1, "queue_length": 0}
    reply = await fleet.client.post(
        "/register_worker",
        json={
            "worker_name": address,
            "check_heart_beat": True,
            "worker_status": status,
            **more,
        },
    )
    assert reply.status_code == 200
    assert reply.json() is None
    return address


# Their workers in our fleet


async def test_a_llava_worker_answers_openais_api_in_a_stream(fleet: Fleet) -> None:
    worker = LlavaWorker()
    await joined(fleet, worker)
    assert await fleet.models() == ["llava-v1.5-7b"]
    content = [
        {"type": "text", "text": "What is here?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    reply, events = await fleet.stream(
        "llava-v1.5-7b", messages=[{"role": "user", "content": content}]
    )
    assert reply.headers["content-type"] == "text/event-stream"
    assert text_of(events) == "Two red squares."
    assert events[-1].data == "[DONE]"
    assert json.loads(events[-2].data)["choices"][0]["finish_reason"] == "stop"
    # As LLaVA's page would have asked: its template for this name, the image before the text.
    sent = worker.received[0]
    assert sent["prompt"] == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions. "
        "USER: <image>\nWhat is here? ASSISTANT:"
    )
    assert sent["images"] == [base64.b64encode(b"picture").decode()]
    assert sent["stop"] == "</s>"


async def test_a_llava_worker_answers_whole_without_counts_that_nobody_made(fleet: Fleet) -> None:
    await joined(fleet, LlavaWorker())
    answer = (await fleet.ask("llava-v1.5-7b")).json()
    assert answer["choices"][0]["message"]["content"] == "Two red squares."
    assert "usage" not in answer


async def test_openais_client_reads_a_legacy_workers_answer(fleet: Fleet) -> None:
    await joined(fleet, FastChatWorker())
    async with fleet.openai() as client:
        answer = await client.chat.completions.create(**question("vicuna-7b-v1.5"))
    assert answer.choices[0].message.content == "Two red squares."
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_a_fastchat_workers_own_template_is_used(fleet: Fleet) -> None:
    worker = FastChatWorker()
    await joined(fleet, worker, multimodal=False)
    await until(lambda: any(r.reach.template for r in records(fleet)))
    await fleet.ask("vicuna-7b-v1.5")
    assert worker.received[0]["prompt"] == "Be brief.\n### Human: What is here?\n### Assistant:"
    assert worker.received[0]["stop"] == "###"
    assert worker.received[0]["echo"] is False


def records(fleet: Fleet) -> list[Any]:
    return fleet.registry.workers()


@pytest.mark.parametrize("stop", ["red", ["nowhere", "d sq"]])
async def test_the_requests_stop_strings_end_a_legacy_answer(fleet: Fleet, stop: Any) -> None:
    await joined(fleet, LlavaWorker())
    _, events = await fleet.stream("llava-v1.5-7b", stop=stop)
    assert text_of(events) == ("Two " if stop == "red" else "Two re")
    assert events[-1].data == "[DONE]"


async def test_a_legacy_workers_failure_is_an_error_with_its_words(fleet: Fleet) -> None:
    await joined(fleet, LlavaWorker(error_code=1))
    reply = await fleet.ask("llava-v1.5-7b", stream=True)
    assert reply.status_code == 500
    assert "NETWORK ERROR" in reply.json()["error"]["message"]


async def test_a_legacy_worker_that_only_fails_is_suspected(fleet: Fleet) -> None:
    await joined(fleet, LlavaWorker(error_code=1))
    for _ in range(ERRORS_IN_A_ROW):
        assert await fleet.models() == ["llava-v1.5-7b"]
        await fleet.ask("llava-v1.5-7b")
    assert await fleet.models() == []


async def test_a_legacy_worker_that_breaks_off_is_a_lost_one(fleet: Fleet) -> None:
    await joined(fleet, LlavaWorker(breaks_off=True))
    reply = await fleet.ask("llava-v1.5-7b", stream=True)
    assert reply.status_code == 502
    assert reply.headers["x-error-code"] == "worker_lost"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"messages": [{"role": "assistant", "content": "x"}]}, "take turns"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}
                        ],
                    }
                ]
            },
            "data: URI",
        ),
        ({"n": 2}, "one answer"),
    ],
)
async def test_what_a_legacy_worker_cannot_do_is_a_400_that_says_so(
    fleet: Fleet, more: dict[str, Any], reason: str
) -> None:
    await joined(fleet, LlavaWorker())
    reply = await fleet.ask("llava-v1.5-7b", **more)
    assert reply.status_code == 400
    assert reason in reply.json()["error"]["message"]


async def test_text_that_looks_like_an_images_place_is_none(fleet: Fleet) -> None:
    worker = LlavaWorker()
    await joined(fleet, worker)
    reply = await fleet.ask(
        "llava-v1.5-7b", messages=[{"role": "user", "content": "what does <image> mean?"}]
    )
    assert reply.status_code == 200
    assert worker.received[0]["prompt"].count("<image>") == 0


async def test_a_worker_that_registers_before_it_listens_is_kept_by_its_beats(fleet: Fleet) -> None:
    status = {"model_names": ["late"], "speed": 1, "queue_length": 0}
    address = "http://127.0.0.1:9"
    registration = {"worker_name": address, "check_heart_beat": True, "worker_status": status}
    assert (await fleet.client.post("/register_worker", json=registration)).status_code == 200
    record = records(fleet)[0]
    assert record.lease.seconds >= 3 * 45  # FastChat beats every 45 s
    beat = {"worker_name": address, "queue_length": 3}
    reply = await fleet.client.post("/receive_heart_beat", json=beat)
    assert reply.json() == {"exist": True}
    assert record.queue_length == 3


async def test_a_beat_of_an_unknown_worker_is_told_so(fleet: Fleet) -> None:
    beat = {"worker_name": "http://127.0.0.1:9", "queue_length": 0}
    assert (await fleet.client.post("/receive_heart_beat", json=beat)).json() == {"exist": False}


async def test_the_register_script_has_the_worker_asked(fleet: Fleet) -> None:
    # register_worker.py knows no status and asserts a 200.
    await joined(fleet, LlavaWorker(), worker_status=None)
    assert await fleet.models() == ["llava-v1.5-7b"]


async def test_a_registration_that_fails_says_so(fleet: Fleet) -> None:
    # LLaVA's controller answers 200 and null, and the worker is nowhere.
    reply = await fleet.client.post(
        "/register_worker",
        json={"worker_name": "http://127.0.0.1:9", "check_heart_beat": True, "worker_status": None},
    )
    assert reply.status_code == 400
    assert "worker_get_status" in reply.json()["error"]["message"]


async def test_a_worker_of_speed_0_harms_no_dispatch(fleet: Fleet) -> None:
    worker = LlavaWorker()
    await joined(
        fleet,
        worker,
        worker_status={"model_names": [worker.name], "speed": 0, "queue_length": 0},
    )
    assert (await fleet.ask(worker.name)).status_code == 200


async def test_a_legacy_worker_that_is_asked_and_does_not_answer_goes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.legacy.workers.POLL_SECONDS", 0.05)
    monkeypatch.setattr("controller.legacy.workers.LEASE_INTERVAL_SECONDS", 0.2)
    worker = LlavaWorker()
    async with serving(worker.app) as address:
        registration = {
            "worker_name": address + "/",
            "check_heart_beat": True,
            "worker_status": None,
        }
        assert (await fleet.client.post("/register_worker", json=registration)).status_code == 200
        await until(lambda: worker.status_requests > 5)
        assert await fleet.models() == [worker.name]
    async with asyncio.timeout(60):
        while await fleet.models():  # noqa: ASYNC110  # the controller's own timer
            await asyncio.sleep(0.05)


# Their pages and scripts


async def test_llavas_page_finds_and_asks_a_legacy_worker_through_us(fleet: Fleet) -> None:
    worker = LlavaWorker()
    address = await joined(fleet, worker)
    page = LlavaPage(fleet.url, fleet.client)
    assert await page.models() == [worker.name]
    assert await page.address(worker.name) == address
    assert await page.address("nobody") == ""
    for where in (address, fleet.url):
        shown = await page.ask(where, "USER: hi ASSISTANT:", worker.name)
        assert shown[-1] == "Two red squares."


async def test_the_stream_through_us_is_the_workers_byte_for_byte(fleet: Fleet) -> None:
    worker = LlavaWorker()
    address = await joined(fleet, worker)
    pload = {"model": worker.name, "prompt": "p", "stop": "</s>"}
    through = await fleet.client.post("/worker_generate_stream", json=pload)
    direct = await fleet.client.post(address + "/worker_generate_stream", json=pload)
    assert through.content == direct.content
    assert "content-type" not in through.headers


async def test_no_worker_is_one_frame_with_code_2(fleet: Fleet) -> None:
    # LLaVA's controller sends a second one with code 3 after it.
    reply = await fleet.client.post("/worker_generate_stream", json={"model": "m", "prompt": "p"})
    assert reply.status_code == 200
    frames = await read_stream(reply)
    assert [frame["error_code"] for frame in frames] == [2]


async def test_an_unreachable_worker_is_one_frame_with_code_3(fleet: Fleet) -> None:
    dying = await fleet.worker(script=Script(fault=Fault.AT_BYTE_ZERO))
    reply = await fleet.client.post(
        "/worker_generate_stream", json={"model": "demo", "prompt": "p"}
    )
    assert [frame["error_code"] for frame in await read_stream(reply)] == [3]
    assert dying.received[0].path == "/worker_generate_stream"


async def test_a_legacy_client_that_waits_gets_the_text_so_far_again_and_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.legacy.reply.LegacyReply.keep_alive_seconds", 0.05)
    worker = LlavaWorker(word_seconds=0.1)
    await joined(fleet, worker)
    tasks = [asyncio.create_task(fleet.ask(worker.name)) for _ in range(10)]  # its places
    await until(lambda: len(worker.received) == 10)
    frames = await read_stream(
        await fleet.client.post(
            "/worker_generate_stream",
            json={"model": worker.name, "prompt": "p", "stop": "</s>"},
        )
    )
    assert frames[0] == {"text": "p", "error_code": 0}
    assert frames[-1]["text"] == "p Two red squares."
    await asyncio.gather(*tasks)


async def test_the_calls_of_fastchats_servers_need_no_json_and_no_body(fleet: Fleet) -> None:
    await joined(fleet, LlavaWorker())
    octets = {"content-type": "application/octet-stream"}
    for path in ("/refresh_all_workers", "/list_models", "/list_multimodal_models"):
        reply = await fleet.client.post(path, content=b"", headers=octets)
        assert reply.status_code == 200
    assert reply.json() == {"models": ["llava-v1.5-7b"]}
    assert (await fleet.client.get("/test_connection")).json() == "success"
    for path in ("/list_models", "/get_worker_address", "/register_worker"):
        assert (await fleet.client.get(path)).status_code == 405


async def test_an_address_that_was_given_out_counts_until_the_worker_tells_of_it(
    fleet: Fleet,
) -> None:
    first, second = await fleet.worker("a"), await fleet.worker("b")
    page = LlavaPage(fleet.url, fleet.client)
    given = [await page.address("demo") for _ in range(6)]
    assert given.count(first.address) == given.count(second.address) == 3


async def test_an_external_server_is_named_to_no_legacy_client() -> None:
    async with (
        MockWorker(served_models=["other"]) as server,
        running_controller(external=server.address) as fleet,
    ):
        await until(lambda: fleet.registry.models().data)
        assert await LlavaPage(fleet.url, fleet.client).address("other") == ""
        reply = await fleet.client.post(
            "/worker_generate_stream", json={"model": "other", "prompt": "p"}
        )
        frame = (await read_stream(reply))[0]
        assert frame["error_code"] == 1
        assert "/v1/chat/completions" in frame["text"]


# Controllers above and below


async def test_a_llava_controller_is_a_worker_of_ours(fleet: Fleet) -> None:
    below, worker = LlavaController(), LlavaWorker()
    async with serving(worker.app) as address, serving(below.app) as controller:
        status = {"model_names": [worker.name], "speed": 1, "queue_length": 0}
        below.workers[address] = status
        reply = await fleet.client.post(
            "/register_worker",
            json={"worker_name": controller, "check_heart_beat": False, "worker_status": None},
        )
        assert reply.status_code == 200
        answer = (await fleet.ask(worker.name)).json()
        assert answer["choices"][0]["message"]["content"] == "Two red squares."


async def test_ours_is_a_worker_of_a_llava_controller(fleet: Fleet) -> None:
    worker = LlavaWorker()
    await joined(fleet, worker)
    above = LlavaController()
    async with serving(above.app) as controller:
        registration = {
            "worker_name": fleet.url,
            "check_heart_beat": False,
            "worker_status": None,
        }
        await fleet.client.post(controller + "/register_worker", json=registration)
        assert above.workers[fleet.url]["model_names"] == [worker.name]
        page = LlavaPage(controller, fleet.client)
        shown = await page.ask(controller, "USER: hi ASSISTANT:", worker.name)
        assert shown[-1] == "Two red squares."


# Who may join, and what that guards against


TOKEN = "a-long-random-token"


def registration_of(address: str) -> dict[str, Any]:
    status = {"model_names": ["gpt-4o"], "speed": 1, "queue_length": 0}
    return {"worker_name": address, "check_heart_beat": False, "worker_status": status}


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254", "http://10.0.0.1:8000", "http://example.org", "http://[fe80::1]:80"],
)
async def test_cve_2024_9309_no_stranger_has_requests_sent_to_another_machine(
    fleet: Fleet, address: str
) -> None:
    reply = await fleet.client.post("/register_worker", json=registration_of(address))
    assert reply.status_code == 403
    assert await fleet.models() == []


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/latest/meta-data/?x=",
        "http://user@127.0.0.1:1",
        "http://127.0.0.1:1#",
        "file:///etc/passwd",
        "127.0.0.1:1",
    ],
)
async def test_cve_2024_10044_a_workers_name_is_an_address_and_nothing_behind_it(
    fleet: Fleet, address: str
) -> None:
    reply = await fleet.client.post("/register_worker", json=registration_of(address))
    assert reply.status_code in (400, 403)
    assert await fleet.models() == []


async def test_with_a_token_nobody_joins_under_a_popular_name_without_it() -> None:
    # FastChat's open report 3886: prompts and images go to whoever registers the name.
    async with running_controller(fleet_token=TOKEN) as fleet:
        message = registration_of("http://127.0.0.1:9")
        assert (await fleet.client.post("/register_worker", json=message)).status_code == 403
        assert await fleet.models() == []
        headers = {"authorization": f"Bearer {TOKEN}"}
        reply = await fleet.client.post("/register_worker", json=message, headers=headers)
        assert reply.status_code == 200


@pytest.mark.parametrize("named", ["127.0.0.0/8", "127.0.0.1"])
async def test_legacy_workers_that_are_named_join_a_fleet_with_a_token(named: str) -> None:
    async with running_controller(fleet_token=TOKEN, legacy_workers=named) as fleet:
        await joined(fleet, LlavaWorker())
        assert await fleet.models() == ["llava-v1.5-7b"]
        reply = await fleet.client.post("/register_worker", json=registration_of("http://10.1.1.1"))
        assert reply.status_code == 403


async def test_a_page_in_a_browser_cannot_register_a_worker(fleet: Fleet) -> None:
    reply = await fleet.client.post(
        "/register_worker",
        content=json.dumps(registration_of("http://127.0.0.1:9")),
        headers={"content-type": "text/plain"},
    )
    assert reply.status_code == 400


async def test_refreshing_asks_no_more_often_than_once_in_a_while(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.legacy.workers.MIN_REFRESH_SECONDS", 600)
    monkeypatch.setattr("controller.legacy.workers.POLL_SECONDS", 600)
    worker = LlavaWorker()
    await joined(fleet, worker)
    await until(lambda: worker.status_requests)
    before = worker.status_requests
    for _ in range(20):
        assert (await fleet.client.post("/refresh_all_workers")).status_code == 200
    await asyncio.sleep(0.1)
    assert worker.status_requests <= before + 1
    assert await fleet.models() == [worker.name]  # LLaVA's empties its table first


async def test_page_loads_under_load_never_empty_the_model_list(fleet: Fleet) -> None:
    # LLaVA's controller and workers wait for each other then: 16 of 25 lists were empty.
    worker = LlavaWorker(word_seconds=0.02)
    await joined(fleet, worker)
    page = LlavaPage(fleet.url, fleet.client)

    async def clients() -> None:
        for _ in range(5):
            await page.ask(fleet.url, "USER: hi ASSISTANT:", worker.name)

    load = [asyncio.create_task(clients()) for _ in range(4)]
    lists = [await page.models() for _ in range(25)]
    assert lists == [[worker.name]] * 25
    await asyncio.gather(*load)


async def test_what_a_registration_lacks_is_named(fleet: Fleet) -> None:
    reply = await fleet.client.post("/register_worker", json={"check_heart_beat": True})
    assert reply.status_code == 400
    assert "worker_name" in reply.json()["error"]["message"]


async def test_status_of_all_workers_together(fleet: Fleet) -> None:
    await fleet.worker("a", models=["one", "two"])
    await joined(fleet, LlavaWorker())
    reply = await fleet.client.post("/worker_get_status", content=b"")
    assert reply.json() == {
        "model_names": ["llava-v1.5-7b", "one", "two"],
        "speed": 2.0,
        "queue_length": 0,
        # Ours, for controllers of ours.
        "via": {model: [fleet.registry.name] for model in ("llava-v1.5-7b", "one", "two")},
    }
