"""Battles as a person holds them, and what the browser learns before the vote: nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import wait_for_models
from tests.browser.test_manners import RICH
from tests.webui.fake_controller import FakeController
from tests.webui.servers import eventually
from tests.webui.wiretap import wiretap

pytestmark = pytest.mark.browser


def test_no_name_is_in_any_traffic_before_the_vote_and_both_are_after_it(
    context: BrowserContext, fake: FakeController, web_url: str, picture: Path
) -> None:
    # Names that occur nowhere else; one of the models fails with its name in the error.
    names = ["zebra-7b", "walrus-13b"]
    models = list(fake.models.values())[:2]
    fake.models = dict(zip(names, models, strict=True))
    for name, model in fake.models.items():
        model.card = model.card.model_copy(update={"name": name, "base": None, "adapter": None})
    with wiretap(web_url) as (address, tap):
        page = context.new_page()
        page.goto(address + "/battle")
        page.locator("#ask input[type=file]").set_input_files(picture)
        wait_for_models(web_url, names)
        _ask(page, "What is in it?")
        for side in (0, 1):
            answer = page.locator(f"#side-{side} .answer")
            expect(answer).to_have_attribute("data-state", "done")
            expect(answer).to_contain_text("red circle")
        fake.models[names[0]].fault = "refuse"
        fake.models[names[1]].is_live = False
        _ask(page, "And now?")
        for side in (0, 1):
            answer = page.locator(f"#side-{side} .answer").nth(1)
            expect(answer).to_have_attribute("data-state", "failed")
        vote = page.locator("[data-vote=left]")
        expect(vote).to_be_disabled()  # the last question has no answer to vote on
        page.reload()
        expect(page.locator("#side-0 .answer").first).to_contain_text("red circle")
        fake.models[names[0]].fault = None
        fake.models[names[1]].is_live = True
        _ask(page, "And at last?")
        for side in (0, 1):
            answer = page.locator(f"#side-{side} .answer").nth(2)
            expect(answer).to_have_attribute("data-state", "done")
        page.locator("[data-reason=correct]").click()
        page.locator("#tag").fill("shapes")
        before = tap.heard()
        vote.click()
        verdict = page.locator("#verdict")
        for name in names:
            expect(verdict).to_contain_text(name)
        after = tap.heard()
    # Every byte that the page's server sent: its text is readable there, and no name is in it.
    assert before.count("red circle") > 4
    assert [name for name in names if name in before] == []
    assert "worker-" not in before
    assert [name for name in names if name not in after] == []
    chat = page.locator("#verdict a").get_attribute("href")
    assert chat is not None
    assert chat.rpartition("/")[2] not in before
    # A second vote is refused, and the first one counts.
    battle = page.url.partition("#")[2]
    again = page.request.post(f"{web_url}/battle/{battle}/vote", data={"winner": "right"})
    assert again.status == 409
    lines = page.request.get(web_url + "/votes.jsonl?tag=shapes").text().splitlines()
    (line,) = map(json.loads, lines)
    assert (line["winner"], line["reasons"]) == ("model_a", ["correct"])
    assert sorted((line["model_a"], line["model_b"])) == sorted(names)
    assert line["tags"] == ["image", "several turns", "shapes"]
    page.goto(web_url + "/leaderboard?tag=shapes")
    expect(page.locator("#ranking tbody tr").first).to_contain_text(line["model_a"])
    expect(page.locator("#pairs tbody tr")).to_have_count(2)
    # From now on it is a chat of this person's.
    page.goto(web_url + "/history?kind=battle")
    expect(page.locator(".chats li")).to_have_count(1)
    page.close()


def _ask(page: Page, question: str) -> None:
    page.locator("#ask textarea").fill(question)
    page.locator("#ask textarea").press("Enter")


def test_nobody_else_sees_or_decides_a_battle(
    page: Page, fake: FakeController, web_url: str
) -> None:
    page.goto(web_url + "/battle")
    wait_for_models(web_url, fake.models)
    page.locator("#ask textarea").fill("Mine?")
    page.locator("#ask textarea").press("Enter")
    expect(page.locator("#side-0 .answer")).to_have_attribute("data-state", "done")
    battle = page.url.partition("#")[2]
    browser = page.context.browser
    assert browser is not None
    stranger = browser.new_context()
    try:
        stranger.new_page().goto(web_url + "/battle")
        request = stranger.request
        for method, path, data in (
            ("GET", "", None),
            ("GET", "/stream", None),
            ("POST", "/vote", {"winner": "left"}),
        ):
            url = f"{web_url}/battle/{battle}{path}"
            assert request.fetch(url, method=method, data=data).status == 404
    finally:
        stranger.close()


def test_answers_are_rendered_as_in_compare_and_make_the_browser_fetch_nothing(
    page: Page, fake: FakeController, web_url: str, requested: list[str]
) -> None:
    evil = r'![x](https://example.com/a.png) <img src="https://example.com/b.png"> \(\frac{1}{'
    for model in fake.models.values():
        model.answer = f"{RICH}\n\n{evil}"
        model.pieces_per_second = 200
    page.goto(web_url + "/battle")
    wait_for_models(web_url, fake.models)
    _ask(page, "Show me")
    for side in (0, 1):
        answer = page.locator(f"#side-{side} .answer")
        expect(answer).to_have_attribute("data-state", "done")
        expect(answer.locator("h1")).to_have_text("Title")
        expect(answer.locator("td").first).to_have_text("1")
        expect(answer.locator(".katex")).to_have_count(2)
        expect(answer.locator(".katex-display")).to_have_count(1)
        expect(answer.locator("pre .nb")).to_have_text("print")
        expect(answer.locator("img")).to_have_count(0)
        expect(answer).to_contain_text('<img src="https://example.com/b.png">')
    assert [address for address in requested if "example.com" in address] == []
    # With the fonts of Gradio, from this server.
    eventually(lambda: page.evaluate("document.fonts.check('16px KaTeX_Main')"))
    page.reload()
    expect(page.locator("#side-0 .answer .katex")).to_have_count(2)
