"""What a tab is sent while its columns are written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from controller.protocol.chat import ChatCompletionChunk, ChunkChoice, Delta
from webui.answer import Answer
from webui.client import ControllerClient
from webui.conversation import Conversation, Turn
from webui.gallery import read_gallery
from webui.heads import Heads, Updates
from webui.page import Page, Tab, build_page
from webui.run import Run
from webui.runs import RunRegistry
from webui.store import ConversationStore
from webui.streams import Streams
from webui.toolkit import gr
from webui.view import View
from webui.watch import FleetWatch

pytestmark = pytest.mark.anyio
_LANES = 4
_TOKEN = 1 / 30  # seconds
_FRAME = 0.11  # seconds


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[tuple[Page, View, Run]]:
    client, store = ControllerClient("http://127.0.0.1:1"), ConversationStore(tmp_path)
    with gr.Blocks(analytics_enabled=False):
        page = build_page(read_gallery(tmp_path), refresh_seconds=1, terms="", can_fetch=False)
    answers = {lane: Answer(f"model {lane}", time.monotonic()) for lane in range(_LANES)}
    conversation = Conversation(turns=[Turn("hi", (), answers)], num_columns=_LANES)
    view = View(page, Heads(page, FleetWatch(client, interval_seconds=1)), can_fetch=False)
    yield page, view, Run(conversation, client, store, lambda *_: None, lambda *_: None)
    await client.aclose()
    store.close()


async def _write(run: Run, lane: int, *, seconds: float) -> None:
    answer = run.conversation.turns[-1].answers[lane]
    await asyncio.sleep(lane * _TOKEN / _LANES)  # columns are never in step
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        choice = ChunkChoice(delta=Delta(content="word "))
        chunk = ChatCompletionChunk(id="x", created=0, model="m", choices=[choice])
        answer.take(chunk, now=now)
        run.announce()
        await asyncio.sleep(_TOKEN)
    answer.finish()
    run.announce()


async def _collect(view: View, run: Run) -> list[Updates]:
    async with aclosing(view.frames(run, Tab())) as frames:
        return [updates async for updates in frames]


async def test_columns_that_are_written_at_once_share_their_frames(
    shown: tuple[Page, View, Run],
) -> None:
    page, view, run = shown
    writing = [asyncio.create_task(_write(run, lane, seconds=1.1)) for lane in range(_LANES)]
    began = time.monotonic()
    frames = await _collect(view, run)
    await asyncio.gather(*writing)
    # Each column alone has ten, and its figures two more.
    assert len(frames) <= (time.monotonic() - began) / _FRAME + 4
    texts = [sum(column.chat in updates for column in page.columns) for updates in frames]
    assert texts.count(_LANES) >= len(frames) / 2


async def test_a_column_that_answers_nothing_is_not_sent_again_and_again(
    shown: tuple[Page, View, Run],
) -> None:
    page, view, run = shown
    hung = _LANES - 1
    writing = [asyncio.create_task(_write(run, lane, seconds=0.8)) for lane in range(hung)]
    collecting = asyncio.create_task(_collect(view, run))
    await asyncio.gather(*writing)
    await asyncio.sleep(3 * _FRAME)
    run.stop(hung)
    frames = await collecting
    column = page.columns[hung]
    parts = {column.chat, column.figures, column.answer_tools}
    # How it begins, and how it ends.
    assert sum(not parts.isdisjoint(updates) for updates in frames) == 2


async def test_the_end_of_the_last_column_is_shown(shown: tuple[Page, View, Run]) -> None:
    page, view, run = shown
    writing = [asyncio.create_task(_write(run, lane, seconds=0.3)) for lane in range(_LANES)]
    collecting = asyncio.create_task(_collect(view, run))
    await asyncio.gather(*writing)
    frames = await collecting
    assert 'data-state="done"' in frames[-1][page.columns[_LANES - 1].figures]


async def test_a_run_without_news_has_an_empty_frame_now_and_then(
    shown: tuple[Page, View, Run],
) -> None:
    _, view, run = shown
    async with aclosing(view.frames(run, Tab())) as frames:
        assert await anext(frames)  # that all of them wait
        assert await asyncio.wait_for(anext(frames), 60) == {}


async def test_a_tab_that_was_opened_just_before_the_end_is_told_of_it(
    shown: tuple[Page, View, Run], tmp_path: Path
) -> None:
    page, view, run = shown
    client, store = ControllerClient("http://127.0.0.1:1"), ConversationStore(tmp_path / "other")
    registry = RunRegistry(client, store, lambda *_: None, limit=1, unwatched_seconds=0)
    streams = Streams(view=view, store=store, runs=registry)
    conversation, tab = run.conversation, Tab()
    view.everything(conversation, tab, is_answering=True)
    for answer in conversation.turns[-1].answers.values():
        answer.finish()
    await store.put(conversation)
    [told] = [each async for each in streams.follow(conversation.id, tab)]
    assert told[page.composer]["submit_btn"] is True
    assert page.columns[0].chat in told
    [told] = [each async for each in streams.follow(conversation.id, tab)]
    assert told == gr.skip()  # it knows
    await client.aclose()
    store.close()
