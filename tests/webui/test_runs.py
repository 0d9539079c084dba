"""Questions under way: independent columns, stops, and streams that are always closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from controller.protocol.fleet import ModelCard
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, eventually
from webui.answer import AskedModel
from webui.client import ControllerClient
from webui.conversation import Answer, AnswerState, Conversation, Turn, UploadedImage
from webui.run import Run
from webui.runs import BusyError, RunRegistry
from webui.store import ConversationStore

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


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ConversationStore]:
    opened = ConversationStore(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
async def registry(
    client: ControllerClient, store: ConversationStore
) -> AsyncIterator[RunRegistry]:
    opened = RunRegistry(client, store, _describe, limit=1, unwatched_seconds=0)
    yield opened
    await opened.aclose()


def _describe(model: str, worker_id: str | None) -> AskedModel:
    return AskedModel(ModelCard(name=model), None if worker_id is None else 17)


def _asked(fake: FakeController, *images: UploadedImage) -> Conversation:
    answers = {n: Answer(name, time.monotonic()) for n, name in enumerate(fake.models)}
    return Conversation(turns=[Turn("hi", images, answers)])


async def _until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, condition)


async def _left_in_mid_answer(registry: RunRegistry, fake: FakeController) -> Conversation:
    """A conversation whose only reader has left while all its models answer."""
    for model in fake.models.values():
        model.answer = LONG
    conversation = _asked(fake)
    answers = conversation.turns[0].answers
    async with registry.open(conversation):
        await _until(lambda: all(answer.text for answer in answers.values()))
    return conversation


async def _over(run: Run) -> None:
    while not run.is_over:
        await run.wait_for_change()


async def test_every_column_gets_its_own_answer(
    registry: RunRegistry, fake: FakeController
) -> None:
    conversation = _asked(fake)
    async with registry.open(conversation) as run:
        await asyncio.wait_for(_over(run), 60)
    texts = [answer.text for answer in conversation.turns[0].answers.values()]
    assert texts == [model.answer for model in fake.models.values()]
    assert {answer.state for answer in conversation.turns[0].answers.values()} == {AnswerState.DONE}


async def test_a_hung_and_a_failing_column_leave_the_others_alone(
    registry: RunRegistry, fake: FakeController
) -> None:
    fake.models["demo-llava"].fault = "hang"
    fake.models["demo-llava-zh"].fault = "refuse"
    conversation = _asked(fake)
    answers = conversation.turns[0].answers
    async with registry.open(conversation):
        await _until(lambda: answers[1].has_ended and answers[2].has_ended)
        assert answers[0].state is AnswerState.WAITING
        assert answers[3].state is AnswerState.FAILED
    assert answers[1].text == fake.models["demo-llava-8bit"].answer
    await _until(lambda: answers[0].state is AnswerState.STOPPED)  # leaving the run ended it


async def test_stopping_one_column_hangs_up_on_its_worker_alone(
    registry: RunRegistry, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.answer = LONG
    conversation = _asked(fake)
    answers = conversation.turns[0].answers
    async with registry.open(conversation) as run:
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
    registry: RunRegistry, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.answer = LONG
    conversation = _asked(fake)

    async def read() -> None:
        async with registry.open(conversation) as run:
            await _over(run)

    task = asyncio.create_task(read())
    await _until(lambda: len(fake.exchanges) == 4 and all(e.num_sent for e in fake.exchanges))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: all(exchange.was_hung_up for exchange in fake.exchanges))
    await _until(lambda: registry.get(conversation.id) is None)


async def test_a_reader_who_comes_back_in_time_finds_the_answers_going_on(
    client: ControllerClient, store: ConversationStore, fake: FakeController
) -> None:
    registry = RunRegistry(client, store, _describe, limit=1, unwatched_seconds=600)
    conversation = await _left_in_mid_answer(registry, fake)
    found = registry.get(conversation.id)
    assert found is not None
    assert not found.has_readers
    sent = [exchange.num_sent for exchange in fake.exchanges]
    with registry.reading(found):
        await _until(lambda: all(e.num_sent > n for e, n in zip(fake.exchanges, sent, strict=True)))
        assert not any(exchange.was_hung_up for exchange in fake.exchanges)
        found.stop_all()
    assert registry.get(conversation.id) is None  # over, and nobody reads it
    await registry.aclose()


async def test_a_run_that_is_over_while_nobody_reads_it_makes_room_for_the_next(
    client: ControllerClient, store: ConversationStore, fake: FakeController
) -> None:
    registry = RunRegistry(client, store, _describe, limit=1, unwatched_seconds=600)
    conversation = _asked(fake)
    async with registry.open(conversation):
        pass  # nobody stays to read it
    await _until(lambda: registry.get(conversation.id) is None)
    states = {answer.state for answer in conversation.turns[0].answers.values()}
    assert states == {AnswerState.DONE}


async def test_a_server_that_ends_waits_until_what_nobody_reads_is_written_down(
    client: ControllerClient, store: ConversationStore, fake: FakeController
) -> None:
    registry = RunRegistry(client, store, _describe, limit=1, unwatched_seconds=600)
    conversation = await _left_in_mid_answer(registry, fake)
    registry.cut_everything()
    await registry.aclose()
    states = await store.database.run(lambda c: c.execute("SELECT state FROM answer").fetchall())
    assert states == [("cut",)] * 4
    assert all(answer.text for answer in conversation.turns[0].answers.values())
    await _until(lambda: all(exchange.was_hung_up for exchange in fake.exchanges))


async def test_two_readers_both_see_the_end(registry: RunRegistry, fake: FakeController) -> None:
    conversation = _asked(fake)
    async with registry.open(conversation) as run:
        await asyncio.wait_for(asyncio.gather(_over(run), _over(run)), 60)


async def test_a_conversation_is_answered_once_at_a_time_and_the_page_so_often(
    registry: RunRegistry, fake: FakeController
) -> None:
    first, second = _asked(fake), _asked(fake)
    async with registry.open(first):
        with pytest.raises(BusyError, match="still being answered"):
            registry.check_free(first.id)
        with pytest.raises(BusyError, match="the most it may"):
            async with registry.open(second):
                pass
    await _until(lambda: registry.get(first.id) is None)
    registry.check_free(first.id)


async def test_an_image_that_was_cleaned_away_is_said_in_every_column(
    registry: RunRegistry, fake: FakeController, tmp_path: Path
) -> None:
    gone = UploadedImage(tmp_path / "gone.png", "image/png", 1, 1)
    conversation = _asked(fake, gone)
    async with registry.open(conversation) as run:
        await asyncio.wait_for(_over(run), 60)
    errors = [answer.error or "" for answer in conversation.turns[0].answers.values()]
    assert all("upload it again" in error for error in errors)
    assert fake.exchanges == []


async def test_what_has_arrived_is_written_down_while_it_arrives(
    registry: RunRegistry, store: ConversationStore, fake: FakeController
) -> None:
    fake.models["demo-llava"].answer = LONG
    conversation = _asked(fake)
    async with registry.open(conversation) as run:
        async with asyncio.timeout(60):
            written = ("waiting", 0)
            while written[1] <= 100:
                await asyncio.sleep(0.05)
                row = await store.database.run(
                    lambda c: c.execute(
                        "SELECT state, length(text) FROM answer WHERE lane = 0"
                    ).fetchone()
                )
                written = row or written
        assert written[0] == "streaming"
        run.cut_all()
    state = await store.database.run(
        lambda c: c.execute("SELECT state FROM answer WHERE lane = 0").fetchone()
    )
    assert state == ("cut",)


async def test_the_exact_request_and_who_answered_it_are_noted(
    registry: RunRegistry, fake: FakeController
) -> None:
    conversation = _asked(fake)
    async with registry.open(conversation) as run:
        await asyncio.wait_for(_over(run), 60)
    answer = conversation.turns[0].answers[0]
    assert answer.request is not None
    assert answer.request["model"] == "demo-llava"
    assert answer.worker_id == "worker-demo-llava"
    assert answer.asked == AskedModel(ModelCard(name="demo-llava"), 17)


async def test_one_after_another_asks_the_next_when_the_last_has_ended(
    registry: RunRegistry, fake: FakeController
) -> None:
    conversation = _asked(fake)
    conversation.is_sequential = True
    conversation.num_columns = 4
    conversation.swap(0, step=1)
    fake.models["demo-llava"].fault = "refuse"  # a failure does not hold up the next
    async with registry.open(conversation) as run:
        await asyncio.wait_for(_over(run), 60)
    models = [exchange.request.model for exchange in fake.exchanges]
    assert models == ["demo-llava-8bit", "demo-llava", "demo-llava-4bit", "demo-llava-zh"]
    ends = [exchange.ended_at for exchange in fake.exchanges if exchange.ended_at is not None]
    begins = [exchange.began_at for exchange in fake.exchanges if exchange.ended_at is not None]
    assert all(end < begin for end, begin in zip(ends, begins[1:], strict=False))


async def test_a_column_can_be_asked_again_while_the_others_go_on(
    registry: RunRegistry, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.answer = LONG
    conversation = _asked(fake)
    answers = conversation.turns[0].answers
    async with registry.open(conversation) as run:
        await _until(lambda: all(answer.text for answer in answers.values()))
        run.stop(0)
        answers[0] = Answer("demo-llava", time.monotonic(), attempt=1)
        run.ask(0)
        await _until(lambda: answers[0].text)
        assert not run.is_over
        assert len(fake.of("demo-llava")) == 2
        run.stop_all()
