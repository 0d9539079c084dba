"""The history over HTTP: found and changed by the owner, read by others who have the address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from controller.chassis.http import install_errors
from tests.webui.chats import OWNER, kept_chat
from webui.history import history_routes
from webui.person import COOKIE
from webui.store import ConversationStore

pytestmark = pytest.mark.anyio
_MINE = {"cookie": f"{COOKIE}={OWNER.removeprefix('browser:')}"}
_THEIRS = {"cookie": f"{COOKIE}={'b' * 22}"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ConversationStore]:
    made = ConversationStore(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
async def http(store: ConversationStore) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_errors(app)
    app.include_router(history_routes(store))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
        yield client


async def test_a_person_sees_their_own_chats_and_nobody_elses(
    http: httpx.AsyncClient, store: ConversationStore, tmp_path: Path
) -> None:
    chat = await kept_chat(store, tmp_path, question="Where is the <b>cat</b>?")
    mine = (await http.get("/history", headers=_MINE)).text
    assert f"./c/{chat.id}" in mine
    assert "Where is the &lt;b&gt;cat&lt;/b&gt;?" in mine
    assert chat.id not in (await http.get("/history", headers=_THEIRS)).text
    assert chat.id not in (await http.get("/history")).text


async def test_chats_are_found_by_what_was_asked_or_answered(
    http: httpx.AsyncClient, store: ConversationStore, tmp_path: Path
) -> None:
    cat = await kept_chat(store, tmp_path, question="Where is the cat?")
    dog = await kept_chat(store, tmp_path, question="Which animal?", answers=("A dog.", "A dog."))
    for search, found, missed in (("CAT", cat, dog), ("dog", dog, cat)):
        html = (await http.get("/history", params={"q": search}, headers=_MINE)).text
        assert found.id in html
        assert missed.id not in html


async def test_only_the_owner_renames_pins_and_deletes(
    http: httpx.AsyncClient, store: ConversationStore, tmp_path: Path
) -> None:
    chat = await kept_chat(store, tmp_path)
    path = f"/history/{chat.id}"
    for headers in (_THEIRS, {}, {**_MINE, "sec-fetch-site": "cross-site"}):
        for method, end, body in (
            ("POST", "/title", {"title": "Stolen"}),
            ("POST", "/pin", {"is_pinned": True}),
            ("DELETE", "", None),
        ):
            reply = await http.request(method, path + end, json=body, headers=headers)
            assert reply.status_code == 403
    await http.post(path + "/title", json={"title": "Mine"}, headers=_MINE)
    await http.post(path + "/pin", json={"is_pinned": True}, headers=_MINE)
    (summary,) = await store.summaries(OWNER)
    assert (summary.title, summary.is_pinned) == ("Mine", True)
    assert (await http.delete(path, headers=_MINE)).status_code == 200
    assert await store.summaries(OWNER) == []
    assert (await http.get(f"/export/{chat.id}.json")).status_code == 404


@pytest.mark.parametrize("form", ["json", "md", "html"])
async def test_an_export_is_a_download_for_whoever_has_the_id(
    http: httpx.AsyncClient, store: ConversationStore, tmp_path: Path, form: str
) -> None:
    chat = await kept_chat(store, tmp_path)
    reply = await http.get(f"/export/{chat.id}.{form}", headers=_THEIRS)
    assert reply.headers["content-disposition"].startswith("attachment")
    assert "A red square." in reply.text
    assert (await http.get(f"/export/{chat.id}.exe")).status_code == 404
