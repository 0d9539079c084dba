"""What is kept survives a restart, stays within its bounds, and is one object while it lives."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from controller.protocol.chat import (
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    FinishReason,
    Metrics,
    PromptTokensDetails,
    Usage,
)
from controller.protocol.fleet import ModelCard
from webui.answer import Answer, AnswerState, AskedModel, Feedback, Rating
from webui.conversation import Conversation, Kind, Turn, UploadedImage
from webui.sampling import Overrides, Sampling
from webui.store import Bounds, ConversationStore, Database, StoreError
from webui.uploads import UploadLimits, check_images

pytestmark = pytest.mark.anyio
LIMITS = UploadLimits(max_bytes=2**20, max_pixels=10**6)
HOUR = 3600


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    opened = ConversationStore(tmp_path / "data")
    yield opened
    opened.close()


def _reopened(store: ConversationStore) -> ConversationStore:
    """As after a restart: nothing is in memory."""
    return ConversationStore(store.database.path.parent)


def _picture(tmp_path: Path, colour: int = 0, side: int = 400) -> UploadedImage:
    path = tmp_path / f"picture {colour}.png"
    Image.new("RGB", (side, 300), (colour, 0, 0)).save(path)
    [image] = check_images([str(path)], LIMITS)
    return image


def _full_answer() -> Answer:
    answer = Answer("m", asked_at=100.0, sampling=Sampling(temperature=0.5, seed=3))
    choice = ChunkChoice(delta=Delta(content="  four\n\twords"), finish_reason=FinishReason.LENGTH)
    usage = Usage(
        prompt_tokens=9,
        completion_tokens=4,
        total_tokens=13,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=2, image_tokens=5),
    )
    chunk = ChatCompletionChunk(
        id="x",
        created=1,
        model="m",
        choices=[choice],
        usage=usage,
        metrics=Metrics(queue_time_ms=1.5, tokens_per_second=30),
    )
    answer.take(chunk, now=101.5)
    answer.request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer.asked = AskedModel(ModelCard(name="m", revision="abc"), memory_bytes=7)
    answer.worker_id = "w-1"
    answer.finish()
    return answer


async def test_a_restart_loses_nothing(store: ConversationStore, tmp_path: Path) -> None:
    [image] = await store.keep_images([_picture(tmp_path)])
    failed = Answer("n", asked_at=0.0)
    failed.fail("the worker was lost", code="worker_lost")
    before = Conversation(owner="ann", title="shapes", sampling=Sampling(top_p=0.5))
    before.arrange(["m", "n", "m"])
    before.columns[2].overrides = Overrides(temperature=0.7, chat_template="plain")
    before.swap(0, step=1)
    before.reference = 1
    before.turns = [Turn("what?", (image,), {0: _full_answer(), 1: failed}), Turn("sure?", (), {})]
    await store.put(before)
    again = _reopened(store)
    after = await again.get(before.id)
    assert after is not None
    assert (after.owner, after.title, after.kind) == ("ann", "shapes", Kind.COMPARE)
    assert (after.columns, after.order, after.num_columns) == (
        before.columns,
        [1, 0, 2, 3, 4, 5],
        3,
    )
    assert (after.sampling, after.reference, after.is_arranged) == (Sampling(top_p=0.5), 1, False)
    assert [turn.text for turn in after.turns] == ["what?", "sure?"]
    assert after.turns[0].images == (image,)
    assert image.path.read_bytes() == _picture(tmp_path).path.read_bytes()
    full, broken = after.turns[0].answers.values()
    original = before.turns[0].answers[0]
    for name in ("text", "state", "finish_reason", "usage", "metrics", "request", "asked"):
        assert getattr(full, name) == getattr(original, name), name
    assert (full.sampling, full.worker_id, full.num_pieces) == (original.sampling, "w-1", 1)
    assert full.first_text_at is not None
    assert full.first_text_at - full.asked_at == 1.5
    assert (broken.state, broken.error, broken.error_code) == (
        AnswerState.FAILED,
        "the worker was lost",
        "worker_lost",
    )
    again.close()


async def test_a_conversation_in_use_is_one_object(store: ConversationStore) -> None:
    conversation = Conversation()
    await store.put(conversation)
    assert await store.get(conversation.id) is conversation
    assert await store.get("never seen") is None
    assert await store.get("") is None


async def test_only_what_has_changed_is_written_again(store: ConversationStore) -> None:
    answer = Answer("m", asked_at=0.0)
    conversation = Conversation(turns=[Turn("hi", (), {0: _full_answer(), 1: answer})])
    await store.put(conversation)
    await store.database.run(lambda c: c.execute("UPDATE answer SET text = 'seen'"))
    answer.text, answer.version = "new", answer.version + 1
    await store.put(conversation)
    texts = await store.database.run(
        lambda c: c.execute("SELECT text FROM answer ORDER BY lane").fetchall()
    )
    assert texts == [("seen",), ("new",)]


async def test_answers_under_way_are_cut_when_their_server_is_gone(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from webui.answer import Answer, AnswerState
from webui.conversation import Conversation, Turn
from webui.store import ConversationStore

async def main():
    store = ConversationStore(Path({str(tmp_path)!r}))
    answer = Answer("m", asked_at=0.0, state=AnswerState.STREAMING, text="half an ans")
    await store.put(Conversation(id="c", turns=[Turn("hi", (), {{0: answer}})]))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    command = [sys.executable, "-c", script]
    ended = await asyncio.to_thread(subprocess.run, command, check=False)
    assert ended.returncode == -9
    store = ConversationStore(tmp_path)
    conversation = await store.get("c")
    assert conversation is not None
    answer = conversation.turns[0].answers[0]
    assert (answer.state, answer.text) == (AnswerState.CUT, "half an ans")
    assert answer.can_continue
    store.close()


async def test_a_second_server_does_not_cut_the_answers_of_the_first(
    store: ConversationStore,
) -> None:
    answer = Answer("m", asked_at=0.0)
    conversation = Conversation(turns=[Turn("hi", (), {0: answer})])
    await store.put(conversation)
    second = _reopened(store)
    seen = await second.get(conversation.id)
    assert seen is not None
    assert seen.turns[0].answers[0].state is AnswerState.WAITING
    second.close()
    store.database.run_now(lambda c: c.execute("SELECT 1"))
    state = await store.database.run(lambda c: c.execute("SELECT state FROM answer").fetchone())
    assert state == ("waiting",)


async def test_another_attempt_takes_the_first_one_s_place_and_both_are_kept(
    store: ConversationStore,
) -> None:
    first = _full_answer()
    conversation = Conversation(turns=[Turn("hi", (), {0: first})])
    await store.put(conversation)
    second = Answer("m", asked_at=0.0, attempt=1, text="better")
    second.finish()
    conversation.turns[0].answers[0] = second
    await store.put(conversation)
    again = _reopened(store)
    read = await again.get(conversation.id)
    assert read is not None
    assert read.turns[0].answers[0].text == "better"
    count = await again.database.run(lambda c: c.execute("SELECT count(*) FROM answer").fetchone())
    assert count == (2,)
    again.close()


async def test_feedback_is_one_row_an_answer_and_a_person(store: ConversationStore) -> None:
    answer = _full_answer()
    conversation = Conversation(owner="ann", turns=[Turn("hi", (), {0: answer})])
    await store.judge(conversation, answer, Feedback(Rating.UP), person="ann")
    down = Feedback(Rating.DOWN, ("wrong colour",), "it is red")
    await store.judge(conversation, answer, down, person="ann")
    await store.judge(conversation, answer, Feedback(Rating.FLAG), person="bob")
    again = _reopened(store)
    read = await again.get(conversation.id)
    assert read is not None
    assert read.turns[0].answers[0].feedback == down
    again.close()
    await store.judge(conversation, answer, Feedback(), person="ann")
    people = await store.database.run(lambda c: c.execute("SELECT person FROM feedback").fetchall())
    assert people == [("bob",)]


async def test_a_history_lists_what_was_asked_pinned_first_and_finds_words(
    store: ConversationStore,
) -> None:
    for number, text in enumerate(("a red circle", "图中有什么", "100% sure_")):
        answer = Answer("m", asked_at=0.0, text=f"answer {number}")
        answer.finish()
        turn = Turn(text, (), {0: answer})
        await store.put(Conversation(id=f"c{number}", owner="ann", turns=[turn]))
    await store.put(Conversation(id="unasked", owner="ann"))
    await store.put(Conversation(id="bob's", owner="bob", turns=[Turn("a red circle")]))
    await store.pin("c0", is_pinned=True)
    await store.rename("c1", " shapes ")

    async def found(search: str) -> list[str]:
        return [summary.id for summary in await store.summaries("ann", search=search)]

    assert await found("") == ["c0", "c1", "c2"]
    assert await found("RED") == ["c0"]
    assert await found("什么") == ["c1"]
    assert await found("SHAPES") == ["c1"]
    assert await found("answer 2") == ["c2"]
    assert await found("%") == ["c2"]
    assert await found("e_") == ["c2"]
    [first, second, _] = await store.summaries("ann")
    assert (first.first_question, first.models, first.is_pinned) == ("a red circle", ("m",), True)
    assert (second.title, second.num_turns) == ("shapes", 1)
    assert await store.summaries("ann", kind=Kind.BATTLE) == []
    await store.delete("c0")
    assert await found("") == ["c1", "c2"]
    assert await store.get("c0") is None


async def test_a_deleted_conversation_is_not_written_again_by_who_still_holds_it(
    store: ConversationStore,
) -> None:
    conversation = Conversation(turns=[Turn("hi")])
    await store.put(conversation)
    await store.delete(conversation.id)
    await store.put(conversation)
    assert await store.database.run(
        lambda c: c.execute("SELECT count(*) FROM conversation").fetchone()
    ) == (0,)


async def test_the_same_image_is_kept_once_with_a_small_copy(
    store: ConversationStore, tmp_path: Path
) -> None:
    [one] = await store.keep_images([_picture(tmp_path)])
    [two] = await store.keep_images([_picture(tmp_path)])
    assert one == two
    assert sorted(path.name for path in store.images.root.glob("??/*")) == [
        one.digest + ".png",
        one.digest + ".thumb.webp",
    ]
    with Image.open(store.images.thumbnail(one.digest)) as small:
        assert small.size == (320, 240)


async def test_the_longest_unused_makes_room_and_takes_its_images_along(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path / "data", Bounds(max_conversations=2))
    for number in range(4):
        images = await store.keep_images([_picture(tmp_path, colour=number)])
        turn = Turn("hi", images)
        await store.put(Conversation(id=f"c{number}", is_pinned=number == 0, turns=[turn]))
    long_ago = time.time() - 2 * HOUR
    for path in store.images.root.glob("??/*"):
        os.utime(path, (long_ago, long_ago))
    await store.prune()
    kept = [number for number in range(4) if await store.get(f"c{number}") is not None]
    assert kept == [0, 3]  # the pinned one, and the one used last
    assert len(list(store.images.root.glob("??/*.webp"))) == 2
    store.close()


async def test_a_store_that_is_full_of_what_is_in_use_says_so(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path / "data", Bounds(max_bytes=200_000))
    noise = tmp_path / "noise.png"
    Image.frombytes("RGB", (300, 300), os.urandom(270_000)).save(noise)
    [image] = check_images([str(noise)], LIMITS)
    images = await store.keep_images([image])
    await store.put(Conversation(id="c", turns=[Turn("hi", images)]))
    with pytest.raises(StoreError, match="--max-data-mib"):
        await store.keep_images([_picture(tmp_path)])
    assert await store.get("c") is not None
    await store.database.run(lambda c: c.execute("UPDATE conversation SET used_at = 0"))
    os.utime(images[0].path, (0, 0))
    await store.keep_images([_picture(tmp_path)])  # the old chat has made room
    assert await store.get("c") is None
    store.close()


async def test_a_page_that_was_opened_and_not_used_is_forgotten_after_a_day(
    store: ConversationStore,
) -> None:
    await store.put(Conversation(id="unasked"))
    await store.prune()
    assert await store.get("unasked") is not None
    await store.database.run(lambda c: c.execute("UPDATE conversation SET used_at = 0"))
    await store.prune()
    assert await store.get("unasked") is None


def test_an_unusable_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--data-dir"):
        ConversationStore(tmp_path / "file")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "paragone.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"file is not a database.*--data-dir"):
        ConversationStore(tmp_path / "data")


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "paragone.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer Paragone"):
        Database(path)


def test_a_failed_migration_leaves_the_old_version(tmp_path: Path) -> None:
    path = tmp_path / "paragone.sqlite3"
    Database(path, ("CREATE TABLE one (x INTEGER) STRICT;",)).close()
    broken = ("CREATE TABLE one (x INTEGER) STRICT;", "CREATE TABLE two (x INTEGER);\nBROKEN;")
    with pytest.raises(StoreError, match="syntax error"):
        Database(path, broken)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert tables == [("one",)]


def test_nobody_else_on_the_machine_can_read_the_chats(store: ConversationStore) -> None:
    assert store.database.path.stat().st_mode & 0o077 == 0
    assert store.images.root.stat().st_mode & 0o077 == 0
