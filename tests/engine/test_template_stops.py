"""What a template says ends an answer ends it, and is no part of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.protocol.chat import ChatMessage, FinishReason
from tests.engine.fake_model import FakeModel, FakePrompt
from worker.engine.protocol import Finished, GenerationRequest, SamplingParams, TextDelta
from worker.engine.sequential import SequentialEngine

pytestmark = pytest.mark.anyio


class Templated(FakeModel):
    """A model whose prompts carry what their template said."""

    def prepare(self, request: GenerationRequest) -> FakePrompt:
        return replace(
            super().prepare(request), stop_strings=("###",), stop_token_ids=frozenset({ord("|")})
        )


async def answer(says: str, stop: tuple[str, ...] = ()) -> tuple[str, Finished]:
    model = Templated(answer=lambda _prompt: says)
    engine = SequentialEngine(model, max_waiting=1, on_device_lost=lambda _reason: None)
    request = GenerationRequest(
        request_id="r",
        model="fake",
        messages=(ChatMessage(role="user", content="hello"),),
        sampling=SamplingParams(stop=stop),
    )
    text, finished = "", None
    try:
        async for event in engine.generate(request):
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Finished):
                finished = event
    finally:
        await engine.aclose()
    assert finished is not None
    return text, finished


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("A cat.###Human: and", "A cat."),
        ("A cat.|Human: and", "A cat."),
        ("A ## cat", "A ## cat"),
        ("One. Two.", "One. Two."),
    ],
)
async def test_an_answer_ends_where_its_template_says(says, shown):
    text, finished = await answer(says)
    assert text == shown
    assert finished.reason is FinishReason.STOP


async def test_a_requests_own_stop_strings_count_beside_the_templates():
    assert (await answer("One. Two.###", stop=("Two",)))[0] == "One. "
