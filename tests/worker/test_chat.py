"""Chat completions over real sockets, with OpenAI's own client and without."""

import asyncio
import base64
import io
import threading

import httpx
import openai
import pytest
from PIL import Image

from controller.protocol import sse
from controller.protocol.chat import ChatCompletionChunk, ChatCompletionRequest
from controller.protocol.completions import CompletionRequest
from controller.protocol.errors import OutOfMemoryError
from controller.protocol.fleet import LoadProgress
from tests.engine.fake_model import FakeModel
from tests.waiting import until
from tests.worker.servers import question, running_worker
from worker.routes.body import BodyLimits

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


def picture(side=8):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def image_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


async def read_stream(running, **more):
    """Status, headers and events of a streamed answer."""
    async with running.client.stream(
        "POST", "/v1/chat/completions", json=question(stream=True, **more)
    ) as reply:
        decoder, events = sse.Decoder(), []
        async for piece in reply.aiter_bytes():
            events.extend(decoder.feed(piece))
        return reply, events


def chunks_of(events):
    return [ChatCompletionChunk.model_validate_json(e.data) for e in events if e.data != "[DONE]"]


async def test_openais_client_gets_an_answer():
    async with running_worker() as running, running.openai() as client:
        answer = await client.chat.completions.create(**question())
        assert answer.choices[0].message.content == "You said: hello"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens == len("You said: hello") + 1
        assert answer.metrics["time_to_first_token_ms"] > 0


async def test_openais_client_gets_a_stream_with_usage():
    async with running_worker() as running, running.openai() as client:
        stream = await client.chat.completions.create(
            **question(), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "You said: hello"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == 1


async def test_a_stream_has_one_role_one_end_and_done():
    async with running_worker() as running:
        reply, events = await read_stream(running)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-worker-id"] == "worker-under-test"
    assert reply.headers["x-request-id"]
    assert events[-1].data == "[DONE]"
    chunks = chunks_of(events)
    assert [c.choices[0].delta.role for c in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].metrics is not None
    assert all(c.usage is None for c in chunks)


async def test_an_empty_answer_is_a_whole_stream():
    async with running_worker(FakeModel(answer=lambda _: "")) as running:
        _, events = await read_stream(running)
    (chunk,) = chunks_of(events)
    assert chunk.choices[0].delta.role == "assistant"
    assert chunk.choices[0].finish_reason == "stop"


async def test_each_token_is_sent_when_it_is_made():
    model = FakeModel(gate=threading.Event())
    async with (
        running_worker(model) as running,
        running.client.stream("POST", "/v1/chat/completions", json=question(stream=True)) as reply,
    ):
        pieces = reply.aiter_bytes()
        # The response begins with acceptance, before there is any token.
        assert reply.status_code == 200
        assert await anext(pieces) == sse.PING
        model.gate.set()
        assert b"Y" in await anext(pieces)


async def test_images_reach_the_model_in_order():
    async with running_worker() as running, running.openai() as client:
        content = [
            {"type": "text", "text": "compare"},
            image_part(picture()),
            image_part(picture(16)),
        ]
        answer = await client.chat.completions.create(**question(content))
    assert answer.usage.prompt_tokens == 9
    assert answer.usage.model_extra is not None
    assert answer.usage.prompt_tokens_details.image_tokens == 8


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:image/png;base64,AAAA", "image"),
        ("data:image/png;base64,!!!", "base64"),
        ("data:image/png;base64,", "empty"),
        ("https://example.org/cat.png", "data:"),
        ("file:///etc/passwd", "data:"),
        ("cat.png", "base64"),
    ],
)
async def test_a_bad_image_is_a_400_that_says_what_was_wrong(url, reason):
    async with running_worker() as running:
        content = [{"type": "text", "text": "what is this?"}, image_part(url)]
        reply = await running.ask(content=content, stream=True)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "messages.0.content.1.image_url.url"
    assert reason in error["message"]


async def test_another_models_name_is_a_404_that_names_this_one():
    async with running_worker() as running, running.openai() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(**{**question(), "model": "gpt-4o"})
    assert caught.value.code == "model_not_found"
    assert "'fake'" in caught.value.message


@pytest.mark.parametrize(
    ("change", "param", "reason"),
    [
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 129}, "n", "less than or equal to 128"),
        ({"n": 7}, "n", "takes 5 in all"),
        ({"min_p": 1.5}, "min_p", "less than or equal to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
        ({"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "greater than or equal to -2"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
        ({"logit_bias": {"five": 1}}, "logit_bias.five", "integer"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0", "greater than or equal to 0"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "more than max_tokens, 4"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs to true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"timeout": 0}, "timeout", "greater than 0"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"response_format": {}}, "response_format", "without a type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "required",
        ),
        (
            {"response_format": {"type": "json_object"}, "ignore_eos": True},
            "ignore_eos",
            "response_format",
        ),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hello"}, "messages", "list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "valid"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages.0.content.0",
            "text and image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0",
            "without a type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]},
            "messages.0.content.0.image_url",
            "valid",
        ),
        ({"image_process_mode": "stretch"}, "image_process_mode", "'pad'"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": 3}, "stop", "valid"),
    ],
)
async def test_a_wrong_field_is_a_400_that_names_it(change, param, reason):
    async with running_worker() as running:
        reply = await running.client.post(
            "/v1/chat/completions", json={**question(), **change, "stream": True}
        )
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == param
    assert reason in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
async def test_a_body_that_is_no_object_is_a_400(body):
    async with running_worker() as running:
        reply = await running.client.post("/v1/chat/completions", content=body, headers=JSON)
    assert reply.status_code == 400
    assert "JSON" in reply.json()["error"]["message"]


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
async def test_null_is_the_same_as_a_field_that_is_left_out(route):
    """Clients that are made from OpenAI's schema write it for all that nobody has set."""
    fields = ChatCompletionRequest if route == "chat/completions" else CompletionRequest
    asked = {**question(), "prompt": "hello"}
    nulls = dict.fromkeys(fields.model_fields.keys() - asked.keys())
    async with running_worker() as running:
        plain = await running.client.post(f"/v1/{route}", json=asked)
        reply = await running.client.post(f"/v1/{route}", json={**nulls, **asked})
        stream = {"stream": True, "stream_options": {"include_usage": None}}
        streamed = await running.client.post(f"/v1/{route}", json={**nulls, **asked, **stream})
    assert reply.status_code == plain.status_code == 200
    assert reply.json()["usage"] == plain.json()["usage"]
    assert streamed.status_code == 200
    assert "usage" not in streamed.text


@pytest.mark.parametrize("detail", [None, "auto", "original"])
async def test_a_hint_how_closely_to_look_is_taken_and_makes_no_difference(detail):
    part = image_part(picture())
    part["image_url"]["detail"] = detail
    async with running_worker() as running:
        reply = await running.ask(content=[part])
    assert reply.status_code == 200


async def test_unknown_fields_are_ignored():
    async with running_worker() as running:
        reply = await running.ask(service_tier="auto", parallel_tool_calls=False)
    assert reply.status_code == 200


async def test_a_body_beyond_the_limit_is_a_413():
    async with running_worker(body_limits=BodyLimits(max_bytes=2_000)) as running:
        declared = await running.ask(content="x" * 3_000)

        async def pieces():
            for _ in range(30):
                yield b"x" * 100

        undeclared = await running.client.post(
            "/v1/chat/completions", content=pieces(), headers=JSON
        )
    for reply in (declared, undeclared):
        assert reply.status_code == 413
        assert "--max-body-bytes" in reply.json()["error"]["message"]


async def test_a_prompt_beyond_the_context_is_a_400_that_says_what_to_shorten():
    text = "one two three four five six"
    async with running_worker(FakeModel(context_length=5)) as running:
        plain = await running.ask(content=text, stream=True)
        seen = await running.ask(content=[image_part(picture())] * 2)
        body = {"model": "fake", "prompt": text}
        continued = await running.client.post("/v1/completions", json=body)
    errors = [reply.json()["error"] for reply in (plain, seen, continued)]
    assert [reply.status_code for reply in (plain, seen, continued)] == [400] * 3
    assert {error["code"] for error in errors} == {"context_length_exceeded"}
    assert [error["param"] for error in errors] == ["messages", "messages", "prompt"]
    assert errors[0]["message"].endswith("; shorten the conversation")
    assert "8 tokens, 8 of them for images," in errors[1]["message"]
    assert errors[1]["message"].endswith("or send fewer images")
    assert errors[2]["message"].endswith("; shorten the prompt")


async def test_a_full_queue_is_a_429_with_retry_after():
    model = FakeModel(gate=threading.Event())
    async with running_worker(model, max_waiting=0) as running:
        first = asyncio.create_task(running.ask())
        await until(lambda: model.started)
        refused = await running.ask(stream=True)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        model.gate.set()
        assert (await first).status_code == 200
        assert (await running.ask()).status_code == 200


async def test_while_it_loads_requests_are_a_503_with_progress():
    may_load = threading.Event()
    progress = LoadProgress(phase="language model", fraction=0.4, bytes_done=4, bytes_total=10)

    def before_load(on_progress):
        on_progress(progress)
        may_load.wait(60)

    async with running_worker(before_load=before_load, wait_until_ready=False) as running:
        await until(lambda: "language" in (running.worker.lifecycle.not_ready_reason() or ""))
        reply = await running.ask()
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "model_loading"
        assert "language model, 40%" in reply.json()["error"]["message"]
        assert int(reply.headers["retry-after"]) >= 1
        assert (await running.ask(model="other")).status_code == 404
        assert (await running.client.get("/health")).status_code == 200
        ready = await running.client.get("/ready")
        assert ready.status_code == 503
        assert ready.json() == {
            "status": "not ready",
            "reason": "fake is loading: language model, 40%",
            "progress": progress.model_dump(),
        }
        assert running.worker.lifecycle.status().progress == progress
        assert (await running.client.get("/v1/models")).json()["data"] == []
        entry = (await running.client.get("/v1/models/fake")).json()
        assert entry["metadata"]["state"] == "loading"
        may_load.set()
        await until(lambda: running.worker.lifecycle.not_ready_reason() is None)
        assert (await running.client.get("/ready")).json() == {"status": "ready"}
        assert running.worker.lifecycle.progress is None
        assert (await running.ask()).status_code == 200


async def test_a_failure_before_the_first_token_of_a_whole_answer_has_its_status():
    model = FakeModel(error=OutOfMemoryError("8 GiB needed, 1 GiB free"))
    async with running_worker(model) as running:
        reply = await running.ask()
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "out_of_memory"
        model.error = None
        assert (await running.ask()).status_code == 200


async def test_a_failure_in_a_stream_is_an_error_event_and_no_done():
    model = FakeModel(error=ZeroDivisionError("a bug"), error_after=3)
    async with running_worker(model) as running:
        reply, events = await read_stream(running)
        assert reply.status_code == 200
        *deltas, last = events
        assert "".join(c.choices[0].delta.content or "" for c in chunks_of(deltas)) == "You"
        assert last.event == "error"
        assert "ZeroDivisionError" in last.data
        assert reply.headers["x-request-id"] in last.data
        model.error = None
        assert (await running.ask()).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_ends_the_generation_within_one_step(stream):
    model = FakeModel(answer=lambda _: "x" * 10_000, step_seconds=0.6)
    async with running_worker(model) as running:
        async with httpx.AsyncClient(base_url=running.url) as leaving:
            task = asyncio.create_task(
                leaving.post("/v1/chat/completions", json=question(stream=stream))
            )
            await until(lambda: model.steps > 0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        steps = model.steps
        await until(lambda: running.engine.stats().running == 0)
        # One step may have been under way, and another begun before the hang-up was seen.
        assert model.steps <= steps + 2
        assert model.open_answers == 0


async def test_a_client_that_hangs_up_in_the_queue_gives_its_place_up():
    model = FakeModel(gate=threading.Event())
    async with running_worker(model, max_waiting=1) as running:
        first = asyncio.create_task(running.ask(content="1"))
        await until(lambda: model.started)
        async with httpx.AsyncClient(base_url=running.url) as leaving:
            task = asyncio.create_task(leaving.post("/v1/chat/completions", json=question("2")))
            await until(lambda: running.engine.stats().waiting == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: running.engine.stats().waiting == 0)
        third = asyncio.create_task(running.ask(content="3"))
        await until(lambda: running.engine.stats().waiting == 1)
        model.gate.set()
        assert (await first).status_code == 200
        assert (await third).status_code == 200
    assert model.started == ["1", "3"]


async def test_a_client_that_does_not_read_is_cut_off_when_it_goes():
    # More than the socket's buffers hold, so that sending waits for the reader.
    model = FakeModel(answer=lambda _: "x" * 200_000, context_length=10**6)
    async with running_worker(model) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.split(":")[2]))
        body = httpx.Request("POST", running.url, json=question(stream=True)).read()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await reader.read(10)
        await until(lambda: model.steps > 100)
        writer.transport.abort()
        await until(lambda: running.engine.stats().running == 0)
        assert model.open_answers == 0


async def test_figures_are_kept_for_prometheus():
    async with running_worker() as running:
        await running.ask()
        await running.ask(max_tokens=2)
        await running.ask(content=[image_part("data:image/png;base64,!!!")])
        text = (await running.client.get("/metrics")).text
    name = 'model_name="fake"'
    prefix = "paragone_worker_"
    assert f'{prefix}request_success_total{{finished_reason="stop",{name}}} 1.0' in text
    assert f'{prefix}request_success_total{{finished_reason="length",{name}}} 1.0' in text
    assert f"{prefix}time_to_first_token_seconds_count{{{name}}} 2.0" in text
    assert f"{prefix}generation_tokens_total{{{name}}} 18.0" in text
    assert f"{prefix}num_requests_running{{{name}}} 0.0" in text
    assert f"{prefix}ready{{{name}}} 1.0" in text


async def test_models_are_listed_with_their_card():
    async with running_worker() as running, running.openai() as client:
        listed = await client.models.list()
        shown = await client.models.retrieve("fake")
        assert [model.id for model in listed.data] == ["fake"]
        assert shown.metadata["card"]["context_length"] == 1000
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")


async def test_a_client_that_goes_while_it_sends_its_body_is_no_error(caplog):
    async with running_worker() as running:
        _, writer = await asyncio.open_connection("127.0.0.1", int(running.url.split(":")[2]))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            b"content-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert (await running.ask()).status_code == 200
    assert [r for r in caplog.records if r.levelname in {"ERROR", "WARNING"}] == []


async def test_each_answer_is_one_line_in_the_log_with_its_request_id(caplog):
    caplog.set_level("INFO", logger="worker")
    async with running_worker() as running:
        await running.client.post(
            "/v1/chat/completions", json=question(), headers={"x-request-id": "mine"}
        )
    (line,) = [r for r in caplog.records if r.name == "worker.telemetry"]
    assert "1 + 16 tokens, stop" in line.getMessage()


async def test_a_body_that_is_not_said_to_be_json_is_a_400():
    async with running_worker() as running:
        reply = await running.client.post(
            "/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"}
        )
    assert reply.status_code == 400
    assert "Content-Type: application/json" in reply.json()["error"]["message"]


async def test_the_openapi_document_describes_chat_completions():
    async with running_worker() as running:
        document = (await running.client.get("/openapi.json")).json()
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "messages" in document["components"]["schemas"][name]["properties"]


async def test_a_body_that_does_not_arrive_in_time_is_a_408():
    async def slowly():
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    async with running_worker(body_limits=BodyLimits(seconds=0.05)) as running:
        reply = await running.client.post("/v1/chat/completions", content=slowly(), headers=JSON)
    assert reply.status_code == 408
    assert "--body-seconds" in reply.json()["error"]["message"]


async def test_several_answers_to_one_question():
    async with running_worker(max_waiting=8) as running, running.openai() as client:
        answer = await client.chat.completions.create(**question(), n=3)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        texts = [choice.message.content for choice in answer.choices]
        assert texts == ["You said: hello", "You said: hello (1)", "You said: hello (2)"]
        assert answer.usage.prompt_tokens == 1
        assert answer.usage.completion_tokens == sum(len(text) + 1 for text in texts)


async def test_several_answers_in_one_stream():
    async with running_worker(max_waiting=8) as running:
        _, events = await read_stream(running, n=3, stream_options={"include_usage": True})
    assert events[-1].data == "[DONE]"
    *chunks, total = chunks_of(events)
    for index, tail in enumerate(["", " (1)", " (2)"]):
        mine = [c.choices[0] for c in chunks if c.choices[0].index == index]
        assert "".join(c.delta.content or "" for c in mine) == f"You said: hello{tail}"
        assert [c.delta.role for c in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert mine[-1].finish_reason == "stop"
    assert total.usage.prompt_tokens == 1
    assert total.usage.completion_tokens == 3 * 16 + 8


async def test_a_client_that_hangs_up_ends_all_its_answers():
    model = FakeModel(answer=lambda _: "x" * 10_000, step_seconds=0.05)
    async with running_worker(model) as running:
        async with httpx.AsyncClient(base_url=running.url) as leaving:
            task = asyncio.create_task(
                leaving.post("/v1/chat/completions", json=question(stream=True, n=3))
            )
            await until(lambda: model.steps > 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: (running.engine.stats().running, running.engine.stats().waiting)
                    == (0, 0))  # fmt: skip
        assert model.open_answers == 0


async def test_logprobs_stand_beside_the_text_whole_and_streamed():
    asked = {"logprobs": True, "top_logprobs": 2}
    async with running_worker() as running, running.openai() as client:
        answer = await client.chat.completions.create(**question(), **asked)
        stream = await client.chat.completions.create(**question(), **asked, stream=True)
        streamed = [
            token
            async for chunk in stream
            for token in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else ())
        ]
        without = await client.chat.completions.create(**question())
    told = answer.choices[0].logprobs.content
    assert "".join(token.token for token in told) == "You said: hello"
    assert [token.logprob for token in told] == [-1.5] * 15
    assert told[0].bytes == [ord("Y")]
    assert [each.token for each in told[0].top_logprobs] == ["?", "Y"]
    assert [token.token for token in streamed] == [token.token for token in told]
    assert without.choices[0].logprobs is None


async def test_an_answer_without_a_token_has_an_empty_list_of_logprobs():
    async with running_worker(FakeModel(answer=lambda _: "")) as running:
        choice = (await running.ask(logprobs=True)).json()["choices"][0]
    assert choice["message"]["content"] == ""
    assert choice["logprobs"] == {"content": []}


async def test_what_of_the_request_ended_an_answer_is_told():
    async with running_worker() as running:
        whole = (await running.ask(stop=["said"])).json()["choices"][0]
        _, events = await read_stream(running, stop_token_ids=[ord("s")])
    assert whole["message"]["content"] == "You "
    assert (whole["finish_reason"], whole["stop_reason"]) == ("stop", "said")
    assert chunks_of(events)[-1].choices[0].stop_reason == ord("s")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"timeout": 1.5}, {}),
        ({}, {"x-request-timeout": "1.5"}),
        ({"timeout": 99}, {"x-request-timeout": "1.5"}),
    ],
)
async def test_an_answer_that_takes_too_long_is_an_error_with_what_there_was(body, headers):
    model = FakeModel(answer=lambda _: "x" * 10_000, step_seconds=0.02)
    async with running_worker(model) as running:
        reply = await running.client.post(
            "/v1/chat/completions", json=question(**body), headers=headers
        )
        assert reply.status_code == 504
        error = reply.json()["error"]
        assert error["code"] == "deadline_exceeded"
        assert "1.5 s" in error["message"]
        (partial,) = reply.json()["partial"]
        assert set(partial) == {"x"}
        await until(lambda: running.engine.stats().running == 0)
        assert model.open_answers == 0


async def test_a_stream_that_takes_too_long_ends_with_an_error():
    model = FakeModel(answer=lambda _: "x" * 10_000, step_seconds=0.02)
    async with running_worker(model) as running:
        _, events = await read_stream(running, timeout=3)
    *deltas, last = events
    assert len(deltas) > 1
    assert last.event == "error"
    assert "deadline_exceeded" in last.data


async def test_a_request_that_waits_for_too_long_never_runs():
    model = FakeModel(gate=threading.Event())
    async with running_worker(model) as running:
        first = asyncio.create_task(running.ask(content="1"))
        await until(lambda: model.started)
        reply = await running.ask(content="2", timeout=0.05)
        assert reply.status_code == 504
        assert "before the first token" in reply.json()["error"]["message"]
        assert running.engine.stats().waiting == 0
        model.gate.set()
        assert (await first).status_code == 200
    assert model.started == ["1"]


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf"])
async def test_a_timeout_in_the_headers_is_a_number_of_seconds(said):
    async with running_worker() as running:
        reply = await running.client.post(
            "/v1/chat/completions", json=question(), headers={"x-request-timeout": said}
        )
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "x-request-timeout"
