"""Text completions over real sockets, with OpenAI's own client and without."""

import openai
import pytest

from tests.engine.fake_model import FakeModel
from tests.worker.servers import running_worker

pytestmark = pytest.mark.anyio

ASKED = {"model": "fake", "prompt": "one two", "max_tokens": 99}


async def post(running, **change):
    return await running.client.post("/v1/completions", json={**ASKED, **change})


async def test_openais_client_gets_a_continuation():
    async with running_worker() as running, running.openai() as client:
        answer = await client.completions.create(**ASKED)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "You said: one two"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert answer.usage.prompt_tokens == 2
    assert answer.metrics["time_to_first_token_ms"] > 0


async def test_openais_client_gets_a_stream_with_usage():
    async with running_worker() as running, running.openai() as client:
        stream = await client.completions.create(
            **ASKED, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "You said: one two"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == 2


async def test_without_a_limit_an_answer_has_sixteen_tokens_as_at_openai():
    async with running_worker(FakeModel(answer=lambda _: "x" * 100)) as running:
        body = {"model": "fake", "prompt": "one"}
        reply = (await running.client.post("/v1/completions", json=body)).json()
    assert reply["choices"][0]["text"] == "x" * 16
    assert reply["choices"][0]["finish_reason"] == "length"


async def test_several_prompts_have_several_answers_each():
    async with running_worker(max_waiting=8) as running, running.openai() as client:
        answer = await client.completions.create(**{**ASKED, "prompt": ["a", "b c"], "n": 2})
    assert [choice.text for choice in answer.choices] == [
        "You said: a",
        "You said: a (1)",
        "You said: b c",
        "You said: b c (1)",
    ]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == 1 + 2


@pytest.mark.parametrize("prompt", [[104, 105], [[104, 105]]])
async def test_a_prompt_may_be_token_ids(prompt):
    async with running_worker() as running:
        reply = (await post(running, prompt=prompt)).json()
    assert [choice["text"] for choice in reply["choices"]] == ["You said: hi"]


async def test_logprobs_are_in_the_older_format():
    async with running_worker() as running, running.openai() as client:
        answer = await client.completions.create(**ASKED, logprobs=2)
        told = answer.choices[0].logprobs
        text = answer.choices[0].text
    assert "".join(told.tokens) == text
    assert told.token_logprobs == [-1.5] * len(text)
    assert told.text_offset == list(range(len(text)))
    assert told.top_logprobs[0] == {"?": -0.25, "Y": -1.5}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"echo": True}, "echo", "unsupported"),
        ({"suffix": "end"}, "suffix", "unsupported"),
        ({"best_of": 3}, "best_of", "unsupported"),
        ({"prompt": []}, "prompt", "invalid_request"),
        ({"prompt": 5}, "prompt", "invalid_request"),
        ({"prompt": ["a"] * 129}, "prompt", "invalid_request"),
        ({"prompt": [-1]}, "prompt.0", "invalid_request"),
        ({"logprobs": 21}, "logprobs", "invalid_request"),
        ({"max_tokens": 0}, "max_tokens", "invalid_request"),
        ({"temperature": -1}, "temperature", "invalid_request"),
    ],
)
async def test_what_cannot_be_done_is_a_400_that_names_the_field(change, param, code):
    async with running_worker() as running:
        reply = await post(running, **change)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert reply.json()["error"]["code"] == code


@pytest.mark.parametrize("change", [{"echo": False}, {"suffix": ""}, {"best_of": 1}])
async def test_fields_that_ask_for_nothing_are_taken(change):
    async with running_worker() as running:
        assert (await post(running, **change)).status_code == 200


async def test_more_answers_than_a_worker_takes_are_refused_at_once():
    async with running_worker(max_waiting=1) as running, running.openai() as client:
        with pytest.raises(openai.BadRequestError, match="2 in all"):
            await client.completions.create(**{**ASKED, "prompt": ["a", "b", "c"]})


async def test_the_openapi_document_describes_completions():
    async with running_worker() as running:
        document = (await running.client.get("/openapi.json")).json()
    body = document["paths"]["/v1/completions"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "prompt" in document["components"]["schemas"][name]["properties"]
