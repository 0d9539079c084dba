"""New chats that an address describes, and whose they are."""

from __future__ import annotations

from types import SimpleNamespace

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from webui.deep_link import DeepLink
from webui.person import COOKIE, PersonCookie, person_of
from webui.sampling import Sampling


def _models(query: dict[str, str]) -> list[str | None]:
    conversation = DeepLink.read(query).conversation(owner="ann")
    return [conversation.columns[lane].model for lane in conversation.visible]


def test_an_address_names_models_question_seed_and_system_prompt() -> None:
    link = DeepLink.read({"models": "a, b", "prompt": "what?", "seed": "7", "system": "Be brief."})
    conversation = link.conversation(owner="ann")
    assert conversation.owner == "ann"
    assert conversation.is_arranged
    assert conversation.sampling == Sampling(seed=7, system_prompt="Be brief.")
    assert link.composed == {"text": "what?"}
    assert link.problem == ""
    assert _models({"models": "a, b"}) == ["a", "b"]


def test_llava_s_address_opens_a_plain_chat() -> None:
    assert _models({"model": "llava-v1.5-7b"}) == ["llava-v1.5-7b"]


def test_without_models_the_fleet_decides() -> None:
    assert not DeepLink.read({"prompt": "what?"}).conversation(owner="").is_arranged


def test_what_cannot_be_used_is_said_and_the_rest_is_taken() -> None:
    link = DeepLink.read({"models": "a", "seed": "many"})
    assert "seed" in link.problem
    assert link.models == ("a",)
    assert link.sampling == Sampling()


def _request(username: str | None = None, mark: str = "") -> SimpleNamespace:
    return SimpleNamespace(username=username, cookies={COOKIE: mark} if mark else {})


def test_a_login_is_a_person_else_the_browser_is() -> None:
    mark = "x" * 22
    assert person_of(_request("ann", mark)) == "login:ann"
    assert person_of(_request(mark=mark)) == f"browser:{mark}"
    assert person_of(_request(mark="login:ann")) == ""  # no mark of ours
    assert person_of(_request()) == ""


def test_a_browser_gets_its_mark_once_with_a_page_and_scripts_cannot_read_it() -> None:
    app = FastAPI()

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return "<p>hello"

    @app.get("/data")
    async def data() -> dict[str, str]:
        return {}

    app.add_middleware(PersonCookie)
    client = TestClient(app)
    assert "set-cookie" not in client.get("/data").headers
    cookie = client.get("/").headers["set-cookie"]
    assert cookie.startswith(COOKIE + "=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "set-cookie" not in client.get("/").headers
