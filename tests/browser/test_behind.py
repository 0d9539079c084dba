"""What is behind an answer: its request, what the model sees, differences, judgements."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController
from tests.webui.servers import eventually

pytestmark = pytest.mark.browser


def test_the_exact_request_is_shown_and_copied(
    compare: ComparePage, page: Page, fake: FakeController, picture: Path
) -> None:
    compare.upload(picture)
    compare.ask("What is it?")
    compare.expect_states("done")
    column = compare.columns[1]
    column.press(column.request)
    expect(compare.panel).to_be_visible()
    for fact in ("demo-llava-8bit", "8bit", "worker-demo-llava-8bit", "USER: <image>"):
        expect(compare.panel).to_contain_text(fact)
    section = compare.panel.locator("section").filter(has_text="As curl")
    section.get_by_role("button", name="Copy").click()

    def copied() -> str:
        return str(page.evaluate("navigator.clipboard.readText()"))

    eventually(lambda: copied().startswith("curl "), what="the command is copied")
    assert "$(base64 < image-1.png" in copied()
    body = compare.panel.locator("section").filter(has_text="Body").locator(".code")
    shown = json.loads(body.text_content() or "")
    assert shown["model"] == "demo-llava-8bit"
    assert shown["messages"][0]["content"][0]["image_url"]["url"] == "image-1.png"
    compare.close_drawer()
    expect(column.request).to_be_focused()


def test_what_the_model_sees_stands_beside_the_original_with_its_cost(
    compare: ComparePage, fake: FakeController, picture: Path
) -> None:
    compare.columns[0].press(compare.columns[0].settings)
    compare.settings.get_by_label("Image mode").click()
    compare.settings.get_by_role("option", name="pad").click()
    compare.close_drawer()
    compare.upload(picture)  # nothing was asked yet
    column = compare.columns[0]
    column.press(column.sees)
    expect(compare.panel).to_contain_text("64 of them stand for images")
    expect(compare.panel).to_contain_text("Original, 64 × 48")
    expect(compare.panel).to_contain_text("3 tiles of 28 × 28")
    pictures = compare.panel.locator("figure img")
    expect(pictures).to_have_count(4)
    for at in range(4):
        expect(pictures.nth(at)).not_to_have_js_property("naturalWidth", 0)
    assert fake.previews[-1].image_process_mode == "pad"
    compare.close_drawer()
    compare.expect_images(1)  # it is still composed


def test_words_that_differ_from_the_chosen_column_are_marked_while_they_arrive(
    compare: ComparePage, fake: FakeController
) -> None:
    reference, same, other, _ = compare.columns
    compare.ask("What is it?")
    compare.expect_states("done")
    reference.press(reference.reference)
    expect(other.marks).to_have_text(["purple"])
    expect(same.marks).to_have_count(0)
    expect(same.agreement).to_contain_text("100 %")
    expect(other.agreement).to_contain_text(re.compile(r"9\d %"))
    for model in fake.models.values():
        model.is_held = True
    compare.ask("And again?")
    expect(other.answers.last).to_contain_text("There are")
    other.expect_state("streaming")
    expect(other.agreement).to_contain_text("%")
    for model in fake.models.values():
        model.is_held = False
    compare.expect_states("done")
    expect(other.marks).to_have_text(["purple", "purple"])
    reference.press(reference.reference)
    expect(other.marks).to_have_count(0)
    expect(other.agreement).to_have_count(0)


def test_a_judgement_with_its_reason_and_note_survives_a_reload(
    compare: ComparePage, page: Page
) -> None:
    compare.ask("What is it?")
    compare.expect_states("done")
    column = compare.columns[1]
    column.press(column.down)
    compare.panel.get_by_role("button", name="not in the image").click()
    reason = compare.panel.get_by_role("button", name="not in the image")
    expect(reason).to_have_attribute("aria-pressed", "true")
    compare.panel.get_by_label("Note").fill("There is no square.")
    compare.panel.get_by_role("button", name="Keep the note").click()
    expect(compare.panel).to_be_hidden()
    expect(column.note).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(column.down).to_have_attribute("aria-pressed", "true")
    column.press(column.note)
    expect(compare.panel.get_by_label("Note")).to_have_value("There is no square.")
    expect(reason).to_have_attribute("aria-pressed", "true")
    compare.close_drawer()
    column.press(column.up)  # one word on an answer, the last one
    expect(column.down).to_have_attribute("aria-pressed", "false")


def test_others_can_read_a_chat_and_go_on_in_a_copy(
    compare: ComparePage, page: Page, browser: Browser, web_url: str
) -> None:
    compare.ask("What is it?")
    compare.expect_states("done")
    identity = page.url.rpartition("c=")[2]
    context = browser.new_context()
    other = ComparePage(context.new_page(), web_url)
    other.page.goto(f"{web_url}/c/{identity}")
    expect(other.notice).to_contain_text("somebody else's")
    expect(other.columns[0].questions).to_have_count(1)
    other.columns[0].press(other.columns[0].up)
    expect(other.columns[0].up).to_have_attribute("aria-pressed", "false")
    other.ask("Are you sure?")
    expect(other.columns[0].questions).to_have_count(2)
    expect(other.page).not_to_have_url(re.compile(identity))
    context.close()
    page.reload()
    expect(compare.columns[0].questions).to_have_count(1)
