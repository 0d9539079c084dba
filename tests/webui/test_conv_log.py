"""The log of answers and votes: LLaVA's fields, a file a day, bounded, and off unless wanted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.webui.chats import kept_chat
from webui.answer import Feedback, Rating
from webui.conv_log import ConversationLog
from webui.conversation import Conversation
from webui.store import ConversationStore

pytestmark = pytest.mark.anyio
_NOON = 1_763_726_400.0  # 2025-11-21 12:00 UTC
_DAY = 86_400


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def chat(tmp_path: Path) -> Conversation:
    store = ConversationStore(tmp_path / "store")
    found = await kept_chat(store, tmp_path)
    store.close()
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_an_answer_and_its_rating_are_lines_with_the_fields_that_llava_wrote(
    chat: Conversation, tmp_path: Path
) -> None:
    log = ConversationLog(tmp_path / "log", clock=lambda: _NOON)
    log.chat(chat, 0)
    log.feedback(chat, 0)  # was not rated: no line
    chat.turns[0].answers[0].judge(Feedback(Rating.DOWN, ("wrong",)))
    log.feedback(chat, 0)
    log.close()
    said, rated = _lines(tmp_path / "log" / "2025-11-21-conv.json")
    assert set(said) == {"tstamp", "type", "model", "start", "finish", "state", "images", "ip"}
    assert (said["type"], said["model"], said["tstamp"]) == ("chat", "full", _NOON)
    assert said["images"] == [chat.turns[0].images[0].digest]
    state = said["state"]
    assert isinstance(state, dict)
    assert state["messages"] == [
        ["USER", "<image>\nWhat is it?"],
        ["ASSISTANT", "A red square."],
    ]
    assert (rated["type"], rated["model"]) == ("downvote", "full")


async def test_without_a_folder_nothing_is_written(chat: Conversation, tmp_path: Path) -> None:
    before = _files(tmp_path)
    log = ConversationLog(None)
    log.chat(chat, 0)
    log.close()
    assert _files(tmp_path) == before


async def test_a_full_file_is_continued_and_an_old_one_goes(
    chat: Conversation, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "2025-01-01-conv.1.json").write_text("{}\n")
    (folder / "notes.json").write_text("mine")
    now = [_NOON]
    log = ConversationLog(folder, max_bytes=600, days=30, clock=lambda: now[0])
    for _ in range(3):
        log.chat(chat, 0)
    now[0] += _DAY
    log.chat(chat, 0)
    log.close()
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "2025-11-21-conv.1.json",
        "2025-11-21-conv.2.json",
        "2025-11-21-conv.json",
        "2025-11-22-conv.json",
        "notes.json",
    ]
