"""Chats as files: whole, and harmless wherever they are opened."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.webui.chats import kept_chat
from webui.answer import Feedback, Rating
from webui.conversation import Conversation
from webui.export import as_html, as_json, as_markdown
from webui.store import ConversationStore

_EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">\n# not a heading'


@pytest.fixture
async def chat(anyio_backend: str, tmp_path: Path) -> Conversation:
    store = ConversationStore(tmp_path / "store")
    found = await kept_chat(store, tmp_path, question=_EVIL, answers=(_EVIL, "fine"))
    store.close()
    return found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.anyio
async def test_the_html_has_the_images_in_it_and_nothing_that_runs_or_fetches(
    chat: Conversation,
) -> None:
    parser = _Tags()
    html = as_html(chat)
    parser.feed(html)
    images = [attributes for tag, attributes in parser.tags if tag == "img"]
    assert [image["src"] for image in images] == [
        "data:image/png;base64,"
        + base64.b64encode(chat.turns[0].images[0].path.read_bytes()).decode()
    ]
    assert {tag for tag, _ in parser.tags}.isdisjoint({"script", "iframe", "link", "object"})
    assert not any(name.startswith("on") for _, each in parser.tags for name in each)
    assert "default-src 'none'" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


@pytest.mark.anyio
async def test_the_json_has_all_that_was_asked_and_answered(chat: Conversation) -> None:
    content = json.loads(as_json(chat))
    (turn,) = content["turns"]
    assert turn["text"] == _EVIL
    assert [(each["model"], each["text"]) for each in turn["answers"]] == [
        ("full", _EVIL),
        ("4bit", "fine"),
    ]
    assert turn["answers"][0]["usage"]["completion_tokens"] == 4
    image = turn["images"][0]
    data = base64.b64decode(image["data"].partition(",")[2])
    assert data == chat.turns[0].images[0].path.read_bytes()


@pytest.mark.anyio
async def test_what_models_write_cannot_break_out_of_its_place_in_the_markdown(
    chat: Conversation,
) -> None:
    headings = [line for line in as_markdown(chat).splitlines() if line.startswith("#")]
    assert [heading.split(" ")[0] for heading in headings] == ["#", "##", "###", "###"]
    assert "> # not a heading" in as_markdown(chat)


@pytest.mark.anyio
async def test_a_judgement_and_a_system_prompt_are_in_the_files_for_reading(
    chat: Conversation,
) -> None:
    answer = chat.turns[0].answers[0]
    answer.judge(Feedback(Rating.DOWN, ("not in the image",), "no <b>square</b>"))
    answer.sampling = answer.sampling.model_copy(update={"system_prompt": "Be brief."})
    html, markdown = as_html(chat), as_markdown(chat)
    assert "rated down (not in the image)" in html
    assert "Note: no &lt;b&gt;square&lt;/b&gt;" in html
    assert "System prompt: Be brief." in html
    for line in ("- Note: no <b>square</b>", "- System prompt: Be brief."):
        assert line in markdown.splitlines()


@pytest.mark.anyio
async def test_an_image_that_is_gone_is_said_to_be_so(chat: Conversation) -> None:
    chat.turns[0].images[0].path.unlink()
    assert "no longer kept" in as_html(chat)
    assert json.loads(as_json(chat))["turns"][0]["images"][0]["data"] is None
