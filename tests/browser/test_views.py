"""History, cluster and leaderboard in a browser: they work, and everybody can use them."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController

pytestmark = pytest.mark.browser


def test_a_chat_is_found_again_renamed_pinned_reopened_and_deleted(
    page: Page, compare: ComparePage, web_url: str
) -> None:
    page.locator("#composer textarea").fill("Where is the unicorn?")
    page.locator("#composer textarea").press("Enter")
    expect(page.locator("#figures-0 .figures")).to_have_attribute("data-state", "done")
    page.get_by_role("link", name="History").click()
    page.locator("input[type=search]").fill("unicorn")
    page.locator("input[type=search]").press("Enter")
    chat = page.locator(".chats li")
    expect(chat).to_have_count(1)
    chat.get_by_role("button", name="Rename").click()
    chat.locator("input.title").fill("Horned horses")
    chat.locator("input.title").press("Enter")
    expect(chat.locator("a.title")).to_have_text("Horned horses")
    chat.get_by_role("button", name="Pin").click()
    expect(chat).to_have_attribute("data-pinned", "true")
    chat.locator("a.title").click()
    expect(page.locator("#chat-0")).to_contain_text("Where is the unicorn?")
    page.goto(web_url + "/history?q=Horned")
    page.once("dialog", lambda dialog: dialog.accept())
    chat.get_by_role("button", name="Delete").click()
    expect(chat).to_have_count(0)
    page.reload()
    expect(chat).to_have_count(0)


def test_the_cluster_follows_the_fleet(page: Page, fake: FakeController, web_url: str) -> None:
    page.goto(web_url + "/cluster")
    row = page.locator("tr", has=page.locator("th", has_text="demo-llava-4bit"))
    expect(row.locator("[data-column=running]")).to_have_text("0/1")
    fake.models["demo-llava-4bit"].running = 1
    expect(row.locator("[data-column=running]")).to_have_text("1/1")
    fake.models["demo-llava-4bit"].is_live = False
    expect(row).to_have_count(0)


@pytest.mark.parametrize("view", ["history", "battle", "leaderboard", "cluster"])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_view_has_no_serious_hurdle_and_fits_the_screen(
    page: Page, fake: FakeController, web_url: str, view: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{web_url}/{view}")
    found: Any = Axe().run(page)
    hurdles = [
        (each["id"], [node["html"][:120] for node in each["nodes"]])
        for each in found.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert hurdles == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
