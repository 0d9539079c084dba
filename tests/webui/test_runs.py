"""Questions under way: independent columns, stops, and streams that are always closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, eventually
from webui.client import ControllerClient
from webui.conversation import Answer, AnswerState, Conversation, Turn, UploadedImage
from webui.runs import BusyError, Run, RunRegistry
from webui.sampling import Sampling

pytestmark = pytest.mark.anyio
LONG = "word " * 20_000


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeController, str]]:
    fake = FakeController()
    with ThreadedServer(fake.app()) as server:
        yield fake, server.url


@pytest.fixture
def fake(served: tuple[FakeController, str]) -> FakeController:
    served[0].models = demo_models(pieces_per_second=200)
    served[0].exchanges = []
    return served[0]


@pytest.fixture
async def client(served: tuple[FakeController, str]) -> AsyncIterator[ControllerClient]:
    opened = ControllerClient(served[1])
    yield opened
    await opened.aclose()


def _asked(fake: FakeController, *images: UploadedImage) -> Conversation:
    answers = {n: Answer(name, time.monotonic()) for n, name in enumerate(fake.models)}
    return Conversation(turns=[Turn("hi", images, Sampling(), answers)])


async def _until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, condition, seconds=5)


async def _over(run: Run) -> None:
    while not run.is_over:
        await run.wait_for_change()


async def test_every_column_gets_its_own_answer(
    client: ControllerClient, fake: FakeController
) -> None:
    conversation = _asked(fake)
    async with RunRegistry(client, limit=1).open(conversation) as run:
        await asyncio.wait_for(_over(run), 10)
    texts = [answer.text for answer in conversation.turns[0].answers.values()]
    assert texts == [model.answer for model in fake.models.values()]
    assert {answer.state for answer in conversation.turns[0].answers.values()} == {AnswerState.DONE}


async def test_a_hung_and_a_failing_column_leave_the_others_alone(
    client: ControllerClient, fake: FakeController
) -> None:
    fake.models["demo-llava"].fault = "hang"
    fake.models["demo-llava-zh"].fault = "refuse"
    conversation = _asked(fake)
    answers = conversation.turns[0].answers
    async with RunRegistry(client, limit=1).open(conversation):
        await _until(lambda: answers[1].has_ended and answers[2].has_ended)
        assert answers[0].state is AnswerState.WAITING
        assert answers[3].state is AnswerState.FAILED
    assert answers[1].text == fake.models["demo-llava-8bit"].answer
    assert answers[0].state is AnswerState.STOPPED  # leaving the run ended it


async def test_stopping_one_column_hangs_up_on_its_worker_alone(
    client: ControllerClient, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.answer = LONG
    conversation = _asked(fake)
    answers = conversation.turns[0].answers
    async with RunRegistry(client, limit=1).open(conversation) as run:
        await _until(lambda: all(answer.text for answer in answers.values()))
        run.stop(1)
        assert answers[1].state is AnswerState.STOPPED
        [stopped] = fake.of("demo-llava-8bit")
        await _until(lambda: stopped.was_hung_up)
        others = [e for e in fake.exchanges if e is not stopped]
        sent = [exchange.num_sent for exchange in others]
        await _until(lambda: all(e.num_sent > n for e, n in zip(others, sent, strict=True)))
        assert not any(exchange.was_hung_up for exchange in others)
        kept = answers[1].text
        assert kept
    assert answers[1].text == kept
    await _until(lambda: all(exchange.was_hung_up for exchange in fake.exchanges))


async def test_a_cancelled_reader_closes_every_stream(
    client: ControllerClient, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.answer = LONG
    registry, conversation = RunRegistry(client, limit=1), _asked(fake)

    async def read() -> None:
        async with registry.open(conversation) as run:
            await _over(run)

    task = asyncio.create_task(read())
    await _until(lambda: len(fake.exchanges) == 4 and all(e.num_sent for e in fake.exchanges))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: all(exchange.was_hung_up for exchange in fake.exchanges))
    assert registry.get(conversation.id) is None


async def test_two_readers_both_see_the_end(client: ControllerClient, fake: FakeController) -> None:
    conversation = _asked(fake)
    async with RunRegistry(client, limit=1).open(conversation) as run:
        await asyncio.wait_for(asyncio.gather(_over(run), _over(run)), 10)


async def test_a_conversation_is_answered_once_at_a_time_and_the_page_so_often(
    client: ControllerClient, fake: FakeController
) -> None:
    registry, first, second = RunRegistry(client, limit=1), _asked(fake), _asked(fake)
    async with registry.open(first):
        with pytest.raises(BusyError, match="still being answered"):
            registry.check_free(first.id)
        with pytest.raises(BusyError, match="the most it may"):
            async with registry.open(second):
                pass
    registry.check_free(first.id)


async def test_an_image_that_was_cleaned_away_is_said_in_every_column(
    client: ControllerClient, fake: FakeController, tmp_path: Path
) -> None:
    gone = UploadedImage(tmp_path / "gone.png", "image/png", 1, 1)
    conversation = _asked(fake, gone)
    async with RunRegistry(client, limit=1).open(conversation) as run:
        assert run.is_over
    errors = [answer.error or "" for answer in conversation.turns[0].answers.values()]
    assert all("upload it again" in error for error in errors)
    assert fake.exchanges == []
