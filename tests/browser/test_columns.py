"""Columns of their own: settings, places, second tries, branches, and a server that ends."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, eventually, web_process

pytestmark = pytest.mark.browser
RED = "a red circle and nothing else"


def test_the_same_model_stands_in_two_columns_with_other_settings(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    compare.show_columns(2)
    compare.places[1].model.click()
    page.get_by_role("option", name="demo-llava", exact=True).click()
    compare.places[1].press(compare.places[1].settings)
    expect(compare.settings.get_by_role("button", name="2 demo-llava")).to_have_attribute(
        "aria-pressed", "true"
    )
    compare.set("Temperature", "0.7")
    compare.set("System prompt", "Be brief.")
    compare.set("Chat template", "plain")
    compare.close_drawer()
    expect(compare.places[1].settings).to_have_attribute("aria-pressed", "true")
    compare.ask("Hello")
    compare.expect_states("done")
    plain, own = sorted((e.request for e in fake.exchanges), key=lambda r: r.temperature or 0)
    assert (plain.model, own.model) == ("demo-llava", "demo-llava")
    assert (plain.temperature, own.temperature) == (0, 0.7)
    assert plain.messages[0].role == "user"
    assert own.messages[0].content == "Be brief."
    assert own.chat_template == "plain"
    assert plain.seed is None  # greedy
    assert own.seed is not None  # drawn, so that it can be drawn again


def test_a_wrong_setting_is_named_and_nothing_is_asked(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    compare.open_settings()
    compare.set("Temperature", "hot")
    expect(compare.settings.locator(".error")).to_contain_text("temperature")
    compare.close_drawer()
    compare.composer.fill("Hello")
    compare.composer.press("Enter")
    expect(compare.notice).to_contain_text("temperature")
    expect(compare.composer).to_have_value("Hello")
    assert fake.exchanges == []


def test_columns_are_added_moved_and_removed_while_they_stream(
    compare: ComparePage, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.is_held = True
    compare.ask("Go on and on")
    compare.expect_states("streaming")
    first, second, third, last = compare.columns
    first.press(first.right)
    compare.expect_columns(["demo-llava-8bit", "demo-llava", "demo-llava-4bit", "demo-llava-zh"])
    second.press(second.stop)  # the same answer, in its new place
    second.expect_state("stopped")
    eventually(lambda: fake.of("demo-llava")[0].was_hung_up)
    first.expect_state("streaming")
    last.press(last.remove)
    compare.expect_columns(["demo-llava-8bit", "demo-llava", "demo-llava-4bit"])
    eventually(lambda: fake.of("demo-llava-zh")[0].was_hung_up)
    third.expect_state("streaming")
    compare.stop_all.click()
    compare.show_columns(4)  # what was removed is back with its answer
    expect(last.answers.first).to_contain_text("图中 有")


def test_a_column_is_asked_again_while_the_others_keep_their_answers(
    compare: ComparePage, fake: FakeController
) -> None:
    compare.ask("Hello")
    compare.expect_states("done")
    fake.models["demo-llava-8bit"].answer = RED
    compare.columns[1].press(compare.columns[1].retry)
    compare.columns[1].expect_answer(RED)
    compare.columns[1].expect_state("done")
    assert len(fake.exchanges) == 5
    compare.columns[0].expect_answer(fake.models["demo-llava"].answer)
    expect(compare.send).to_be_visible()


def test_an_answer_that_was_stopped_goes_on_where_it_was(
    compare: ComparePage, fake: FakeController
) -> None:
    model, column = fake.models["demo-llava"], compare.columns[0]
    model.is_held = True
    compare.ask("Hello")
    expect(column.answers.first).to_contain_text("There are")
    column.press(column.stop)
    column.expect_state("stopped")
    compare.columns[3].expect_state("done")
    model.answer, model.is_held = RED, False
    column.press(column.resume)
    column.expect_state("done")
    first, second = fake.of("demo-llava")
    said = second.request.messages[-1]
    assert said.role == "assistant"
    assert str(said.content).startswith("There are")
    expect(column.answers.first).to_have_text(f"{said.content}{RED}")
    eventually(lambda: first.was_hung_up)
    expect(column.resume).to_be_disabled()


def test_one_after_another_asks_a_column_when_the_one_before_has_ended(
    compare: ComparePage, fake: FakeController
) -> None:
    compare.open_settings()
    compare.settings.get_by_label("One column after another").check()
    compare.close_drawer()
    compare.ask("Hello")
    compare.expect_states("done")
    began = [exchange.began_at for exchange in fake.exchanges]
    ended = [exchange.ended_at or 0 for exchange in fake.exchanges]
    assert [exchange.request.model for exchange in fake.exchanges] == list(fake.models)
    assert all(end < begin for end, begin in zip(ended, began[1:], strict=False))


def test_an_error_offers_another_try_in_its_own_column(
    compare: ComparePage, fake: FakeController
) -> None:
    model, column = fake.models["demo-llava"], compare.columns[0]
    model.fault = "error_midway"
    compare.ask("Hello")
    column.expect_state("failed")
    model.fault = None
    column.error.get_by_role("button", name="Ask again").click()
    column.expect_answer(model.answer)
    column.expect_state("done")


def test_a_later_turn_may_bring_another_image(
    compare: ComparePage, fake: FakeController, picture: Path
) -> None:
    compare.ask("Hello")
    compare.expect_states("done")
    compare.upload(picture)
    compare.ask("And what is this?")
    compare.expect_states("done")
    last = fake.exchanges[-1].request.messages[-1].content
    assert [part.type for part in last or [] if not isinstance(part, str)] == ["image_url", "text"]


def test_an_earlier_question_is_edited_and_a_branch_begins(
    compare: ComparePage, page: Page, fake: FakeController, picture: Path
) -> None:
    compare.upload(picture)
    compare.ask("What is it?")
    compare.expect_states("done")
    compare.ask("Are you sure?")
    compare.expect_states("done")
    before = page.url
    question = compare.columns[0].questions.first
    question.hover()
    question.get_by_role("button", name="Edit and ask again").click()
    expect(compare.composer).to_have_value("What is it?")
    compare.expect_images(1)
    compare.ask("What colour is it?")
    expect(compare.columns[0].questions).to_have_count(1)
    compare.expect_states("done")
    expect(page).not_to_have_url(before)
    [message] = fake.exchanges[-1].request.messages
    assert [part.type for part in message.content or [] if not isinstance(part, str)] == [
        "image_url",
        "text",
    ]
    page.goto(before)  # the old branch is whole
    expect(compare.columns[0].questions).to_have_count(2)


def test_a_picture_is_taken_with_the_camera(compare: ComparePage, page: Page) -> None:
    page.get_by_role("button", name="Take a picture with the camera").click()
    page.get_by_role("button", name="Take the picture").click()
    compare.expect_images(1)


def test_six_columns_have_room_in_a_narrow_window(compare: ComparePage, page: Page) -> None:
    page.set_viewport_size({"width": 1024, "height": 700})
    compare.show_columns(6)
    last = compare.places[5]
    last.box.scroll_into_view_if_needed()
    expect(last.settings).to_be_in_viewport(ratio=1)
    expect(page.locator("#head [data-value=help]")).to_be_in_viewport(ratio=1)
    cut = """() => [...document.querySelectorAll("#columns .figures dt")]
        .filter((each) => each.offsetWidth && each.scrollWidth > each.clientWidth)
        .map((each) => each.textContent)"""
    eventually(lambda: page.evaluate(cut) == [], what="every figure's name is whole")
    assert page.evaluate("getComputedStyle(document.querySelector('#columns')).overflowX") == "auto"


def test_a_reload_and_a_second_tab_find_the_answers_going_on(context: BrowserContext) -> None:
    fake = FakeController(demo_models())
    for model in fake.models.values():
        model.is_held = True
    with (
        ThreadedServer(fake.app()) as controller,
        web_process(controller.url, "--unwatched-seconds", "600") as (url, _),
    ):
        first, second = (ComparePage(context.new_page(), url) for _ in range(2))
        first.open()
        first.expect_columns(list(fake.models))
        first.ask("Go on and on")
        first.columns[0].expect_state("streaming")
        first.page.reload()
        second.page.goto(first.page.url)
        for tab in (first, second):
            expect(tab.columns[0].answers.first).to_contain_text("There are")
            tab.columns[0].expect_state("streaming")
            expect(tab.stop_all).to_be_visible()
        first.page.close()
        for model in fake.models.values():
            model.is_held = False
        for column, model in zip(second.columns, fake.models.values(), strict=True):
            column.expect_answer(model.answer)
            column.expect_state("done")
        expect(second.send).to_be_visible()
        assert [exchange.was_hung_up for exchange in fake.exchanges] == [False] * 4
        second.page.close()


def test_a_server_that_dies_in_mid_answer_has_kept_the_chat_and_marks_the_cut_answers(
    context: BrowserContext, tmp_path: Path
) -> None:
    fake = FakeController()
    page = context.new_page()
    folder = str(tmp_path / "data")
    with ThreadedServer(fake.app()) as controller:
        fake.models = demo_models()
        fake.models["demo-llava"].is_held = True
        with web_process(controller.url, "--data-dir", folder) as (url, process):
            compare = ComparePage(page, url)
            compare.open()
            compare.expect_columns(list(fake.models))
            compare.ask("Go on and on")
            compare.columns[3].expect_state("done")
            expect(compare.columns[0].answers.first).to_contain_text("There are")
            eventually(lambda: _written(tmp_path / "data"), what="what there is of it is kept")
            address = page.url.replace(url, "")
            process.send_signal(signal.SIGKILL)
            process.wait()
        with web_process(controller.url, "--data-dir", folder) as (url, _):
            page.goto(url + address)
            compare.columns[0].expect_state("cut")
            expect(compare.columns[0].answers.first).to_contain_text("There are")
            expect(compare.columns[0].box.locator(".note")).to_contain_text("cut")
            compare.columns[3].expect_answer(fake.models["demo-llava-zh"].answer)
            expect(compare.columns[0].resume).to_be_enabled()
            compare.ask("Hello")
            compare.columns[3].expect_state("done")
            compare.stop_all.click()
    page.close()


def _written(folder: Path) -> bool:
    """Whether some of the first column's answer is in the page's database."""
    with contextlib.closing(sqlite3.connect(folder / "paragone.sqlite3")) as database:
        row = database.execute("SELECT max(length(text)) FROM answer WHERE lane = 0").fetchone()
    return bool(row[0])
