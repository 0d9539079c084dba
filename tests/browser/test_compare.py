"""The page against a pretended controller: streams, stops, faults, uploads, manners."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from controller.protocol.chat import ImagePart, TextPart
from controller.protocol.fleet import LoadProgress, WorkerState
from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController
from tests.webui.servers import eventually

pytestmark = pytest.mark.browser
LONG = " ".join(f"word{number}" for number in range(2000))


def test_four_columns_stream_their_own_answers_with_figures(
    compare: ComparePage, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.pieces_per_second = 30
    compare.ask("What is in the picture?")
    for column, model in zip(compare.columns, fake.models.values(), strict=True):
        column.expect_answer(model.answer)
        column.expect_state("done")
        expect(column.figure("queue")).to_have_text("0.4 ms")
        expect(column.figure("TTFT")).to_have_text("41 ms")
        expect(column.figure("tokens/s")).to_have_text("30.0")
        expect(column.figure("tokens")).to_have_text(str(len(model.answer.split(" "))))
        expect(column.figure("finish")).to_have_text("stop")
    expect(compare.send).to_be_visible()


def test_a_hung_column_does_not_hold_up_the_others(
    compare: ComparePage, fake: FakeController
) -> None:
    fake.models["demo-llava-8bit"].fault = "hang"
    compare.ask("What is in the picture?")
    for number, model in enumerate(fake.models.values()):
        if model.fault is None:
            compare.columns[number].expect_answer(model.answer)
            compare.columns[number].expect_state("done")
    compare.columns[1].expect_state("waiting")
    compare.stop_all.click()
    compare.columns[1].expect_state("stopped")


def test_a_column_that_hangs_gives_the_browser_nothing_to_do(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    fake.models["demo-llava-8bit"].fault = "hang"
    compare.ask("What is in the picture?")
    for place in (0, 2, 3):
        compare.columns[place].expect_state("done")
    compare.columns[1].expect_state("waiting")
    endless = """() => document.getAnimations().filter(
        (each) => each.effect.getComputedTiming().endTime === Infinity).length"""
    assert page.evaluate(endless) == 0
    changes = """() => new Promise((done) => {
        let number = 0;
        new MutationObserver((records) => { number += records.length; }).observe(
            document.querySelector("#columns"),
            { childList: true, characterData: true, attributes: true, subtree: true });
        setTimeout(() => done(number), 1500);
    })"""
    # At first there may be what the ends of the others change; then nothing ticks.
    eventually(lambda: page.evaluate(changes) == 0, what="no change for a while")


def test_stop_ends_its_own_column_and_no_other(compare: ComparePage, fake: FakeController) -> None:
    for model in fake.models.values():
        model.is_held = True
    compare.ask("Go on and on")
    for column in compare.columns:
        column.expect_state("streaming")
    compare.columns[2].stop.click()
    compare.columns[2].expect_state("stopped")
    [exchange] = fake.of("demo-llava-4bit")
    eventually(lambda: exchange.was_hung_up, what="the stopped stream is closed")
    for model in fake.models.values():
        model.is_held = False
    for place in (0, 1, 3):
        compare.columns[place].expect_state("done")
    assert [e.was_hung_up for e in fake.exchanges].count(True) == 1
    expect(compare.columns[2].box.locator(".note")).to_have_text("stopped")
    expect(compare.columns[2].answers.first).to_contain_text("There are")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_all_ends_every_column(
    compare: ComparePage, page: Page, fake: FakeController, how: str
) -> None:
    for model in fake.models.values():
        model.is_held = True
    compare.ask("Go on and on")
    for column in compare.columns:
        column.expect_state("streaming")
    if how == "button":
        compare.stop_all.click()
    else:
        page.keyboard.press("Escape")
    for column in compare.columns:
        column.expect_state("stopped")
    eventually(lambda: all(e.was_hung_up for e in fake.exchanges))
    compare.ask("And again")  # the composer is free at once
    eventually(lambda: len(fake.exchanges) == 8)
    for column in compare.columns:
        column.expect_state("streaming")
    compare.stop_all.click()


@pytest.mark.parametrize("what", ["flows", "waits in mid-answer", "waits for its first word"])
def test_a_closed_tab_ends_its_answers_also_while_nothing_flows(
    compare: ComparePage, page: Page, fake: FakeController, what: str
) -> None:
    for model in fake.models.values():
        model.answer, model.pieces_per_second = LONG, 10
        if what == "waits in mid-answer":
            model.answer, model.is_held = "one two", True
        elif what == "waits for its first word":
            model.fault = "hang"
    compare.ask("Go on and on")
    eventually(lambda: len(fake.exchanges) == 4)
    for column in compare.columns:
        column.expect_state("waiting" if "first word" in what else "streaming")
    page.close()
    # Sooner than the streams' own silence ends them, after 60 s.
    eventually(
        lambda: all(exchange.was_hung_up for exchange in fake.exchanges),
        seconds=45,
        what="every stream is closed",
    )


def test_a_dead_model_is_gone_in_its_column_and_comes_back(
    compare: ComparePage, fake: FakeController
) -> None:
    model, column = fake.models["demo-llava-4bit"], compare.columns[2]
    expect(column.state).to_have_attribute("data-kind", "ready")
    model.is_live = False
    expect(column.state).to_have_attribute("data-kind", "gone")
    expect(column.state).to_contain_text("gone")
    compare.expect_columns(list(fake.models))  # it keeps its place
    compare.ask("Who is there?")
    expect(column.error).to_contain_text("No worker serves demo-llava-4bit now")
    compare.columns[0].expect_state("done")
    model.is_live = True
    model.state = WorkerState.LOADING
    model.progress = LoadProgress(phase="language model", fraction=0.43)
    expect(column.state).to_contain_text("loading language model 43 %")
    model.state = WorkerState.READY
    expect(column.state).to_have_attribute("data-kind", "ready")
    compare.ask("And now?")
    column.expect_answer(model.answer)


def test_the_list_of_models_follows_the_fleet(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    compare.columns[0].model.click()
    options = page.get_by_role("option")
    expect(options).to_have_text([re.compile(name) for name in fake.models])
    fake.models["demo-llava-zh"].is_live = False
    # An open list keeps its length, so that nothing slides away under the pointer.
    expect(options.last).to_have_text(re.compile("demo-llava-zh .gone."))
    compare.composer.click()
    expect(options).to_have_count(0)

    def offered() -> list[str]:
        """Opened anew, as a closed one follows the fleet."""
        compare.columns[0].model.click()
        expect(options.first).to_be_visible()
        names = options.all_inner_texts()
        compare.composer.click()
        expect(options).to_have_count(0)
        return [name.strip().removeprefix("✓").strip() for name in names]

    eventually(lambda: offered() == list(fake.models)[:3], what="the list follows the fleet")
    compare.expect_columns(list(fake.models))  # no column is disturbed
    expect(compare.columns[3].state).to_have_attribute("data-kind", "gone")
    fake.models["demo-llava-zh"].is_live = True
    expect(compare.columns[3].state).to_have_attribute("data-kind", "ready")
    eventually(lambda: offered() == list(fake.models), what="it follows the fleet back")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", "The queue of this worker is full"),
        ("error_midway", "The worker was lost in mid-answer."),
        ("break_midway", "broke"),
    ],
)
def test_an_error_is_shown_in_its_column_and_the_partial_answer_is_kept(
    compare: ComparePage, fake: FakeController, fault: str, message: str
) -> None:
    model = fake.models["demo-llava"]
    model.fault = fault  # type: ignore[assignment]  # one of the literals
    compare.ask("What is in the picture?")
    column = compare.columns[0]
    expect(column.error).to_contain_text(message)
    column.expect_state("failed")
    expect(column.figure("finish")).to_have_text("error")
    if fault != "refuse":
        expect(column.answers.first).to_contain_text("There are two shapes")
    for number in (1, 2, 3):
        compare.columns[number].expect_state("done")


def test_a_conversation_has_turns_and_keeps_its_image(
    compare: ComparePage, fake: FakeController, picture: Path
) -> None:
    compare.upload(picture)
    compare.ask("What is it?")
    for column in compare.columns:
        column.expect_state("done")
        expect(column.questions.locator("img")).to_have_count(1)
        expect(column.figure("image")).to_have_text("64")
    compare.ask("And its colour?")
    eventually(lambda: len(fake.exchanges) == 8)
    for exchange in fake.exchanges[4:]:
        first, answer, second = exchange.request.messages
        assert isinstance(first.content, list)
        image, text = first.content
        assert isinstance(image, ImagePart)
        assert image.image_url.url.startswith("data:image/png;base64,iVBOR")
        assert text == TextPart(text="What is it?")
        assert answer.content == fake.models[exchange.request.model].answer
        assert second.content == "And its colour?"


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_an_image_can_be_pasted_and_dropped(
    compare: ComparePage, fake: FakeController, picture: Path, event: str
) -> None:
    compare.transfer(picture, event)
    compare.expect_images(1)
    compare.ask("What is it?")
    for column in compare.columns:
        expect(column.questions.locator("img")).to_be_visible()
    eventually(lambda: len(fake.exchanges) == 4)
    parts = fake.exchanges[0].request.messages[0].content
    assert isinstance(parts, list)
    assert [part.type for part in parts] == ["image_url", "text"]


def test_a_click_on_an_example_composes_its_image_and_question(
    compare: ComparePage, page: Page, fake: FakeController, examples: Path
) -> None:
    expect(page.get_by_text("They know blue.")).to_be_visible()
    for _ in range(2):  # the same one twice, the second after a change of mind
        page.get_by_role("button", name="How large is it?").click()
        expect(compare.composer).to_have_value("How large is it?")
        compare.expect_images(1)
        compare.composer.fill("Never mind")
    page.get_by_role("button", name="Use example image 1").click()
    expect(compare.composer).to_have_value("Which colour is it?")
    compare.composer.press("Enter")
    eventually(lambda: len(fake.exchanges) == 4)
    image, text = fake.exchanges[0].request.messages[0].content or []
    assert isinstance(image, ImagePart)
    data = image.image_url.url.removeprefix("data:image/png;base64,")
    assert base64.b64decode(data) == (examples / "blue.png").read_bytes()
    assert text == TextPart(text="Which colour is it?")
    expect(page.get_by_text("They know blue.")).to_be_hidden()  # room for the answers


def test_what_is_no_image_is_refused_with_a_reason_and_the_question_is_kept(
    compare: ComparePage, fake: FakeController, picture: Path
) -> None:
    picture.write_bytes(picture.read_bytes()[:60])
    compare.upload(picture)
    compare.composer.fill("What is it?")
    compare.composer.press("Enter")
    expect(compare.notice).to_contain_text("picture.png is")
    expect(compare.composer).to_have_value("What is it?")
    assert fake.exchanges == []


def test_enter_sends_and_shift_enter_breaks_the_line(
    compare: ComparePage, fake: FakeController
) -> None:
    compare.composer.press_sequentially("one")
    compare.composer.press("Shift+Enter")
    compare.composer.press_sequentially("two")
    compare.composer.press("Enter")
    eventually(lambda: len(fake.exchanges) == 4)
    assert fake.exchanges[0].request.messages[0].content == "one\ntwo"


def test_the_settings_are_sent(compare: ComparePage, page: Page, fake: FakeController) -> None:
    compare.open_settings()
    compare.set("Max tokens", "33")
    compare.set("Seed", "7")
    compare.set("System prompt", "Be brief.")
    compare.close_drawer()
    compare.ask("Hello")
    eventually(lambda: len(fake.exchanges) == 4)
    for exchange in fake.exchanges:
        request = exchange.request
        assert (request.temperature, request.top_p) == (0, 1)
        assert (request.max_tokens, request.seed) == (33, 7)
        assert request.messages[0].role == "system"
        assert request.messages[0].content == "Be brief."


def test_new_chat_forgets_the_turns_and_keeps_the_columns(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    compare.ask("Hello")
    compare.columns[0].expect_state("done")
    address = page.url
    page.get_by_role("button", name="New chat").click()
    expect(compare.columns[0].questions).to_have_count(0)
    compare.expect_columns(list(fake.models))
    expect(page).not_to_have_url(address)
    compare.ask("Hello again")
    eventually(lambda: len(fake.exchanges) == 8)
    assert len(fake.exchanges[-1].request.messages) == 1


def test_a_new_chat_in_mid_answer_ends_the_old_answers_and_stays_empty(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.is_held = True
    compare.ask("Go on and on")
    for column in compare.columns:
        column.expect_state("streaming")
    page.get_by_role("button", name="New chat").click()
    expect(compare.columns[0].questions).to_have_count(0)
    eventually(lambda: all(exchange.was_hung_up for exchange in fake.exchanges))
    expect(compare.send).to_be_visible()
    for model in fake.models.values():
        model.answer, model.is_held = "short", False
    compare.ask("Hello")  # by its end the old stream would have spoken up, were it still there
    for column in compare.columns:
        column.expect_answer("short")
        expect(column.questions).to_have_count(1)


def test_a_chat_that_is_no_longer_kept_is_said_to_be(
    page: Page, fake: FakeController, web_url: str
) -> None:
    compare = ComparePage(page, web_url)
    compare.open("?c=forgotten")
    expect(compare.notice).to_contain_text("no longer kept")
    compare.expect_columns(list(fake.models))


def test_a_reload_finds_the_conversation_again(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    compare.ask("Hello")
    for column in compare.columns:
        column.expect_state("done")
    expect(page).to_have_url(re.compile(r"\?c=."))
    page.reload()
    for column, model in zip(compare.columns, fake.models.values(), strict=True):
        column.expect_answer(model.answer)


def test_columns_can_be_hidden_and_given_other_models(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    compare.show_columns(2)
    compare.expect_columns(["demo-llava", "demo-llava-8bit"])
    compare.columns[1].model.click()
    page.get_by_role("option", name="demo-llava-zh").click()
    compare.ask("Hello")
    compare.columns[1].expect_answer(fake.models["demo-llava-zh"].answer)
    asked = sorted(exchange.request.model for exchange in fake.exchanges)
    assert asked == ["demo-llava", "demo-llava-zh"]


def test_models_can_be_named_in_the_address(page: Page, fake: FakeController, web_url: str) -> None:
    compare = ComparePage(page, web_url)
    compare.open("?models=demo-llava-zh,demo-llava")
    compare.expect_columns(["demo-llava-zh", "demo-llava"])


def test_an_image_in_a_model_s_answer_cannot_make_the_browser_ask_another_host(
    compare: ComparePage, fake: FakeController, requested: list[str]
) -> None:
    fake.models["demo-llava"].answer = "Look: ![x](https://example.com/leak.png) <b>done</b>"
    compare.ask("Hello")
    compare.columns[0].expect_state("done")
    expect(compare.columns[0].answers.locator("img")).to_have_count(1)
    compare.columns[1].expect_state("done")
    sent = [address for address in requested if "example.com" in address]
    # Chromium reports the request that the policy blocked; it must never get an answer.
    requested[:] = [address for address in requested if address not in sent]
    loaded = compare.columns[0].answers.locator("img").evaluate("image => image.naturalWidth")
    assert loaded == 0


def test_every_response_carries_the_content_security_policy(web_url: str) -> None:
    for path in ("/", "/config", "/health"):
        policy = httpx.get(web_url + path, trust_env=False).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "http" not in policy


def test_a_second_tab_shows_the_same_conversation_while_it_streams(
    compare: ComparePage, context: BrowserContext, page: Page, fake: FakeController
) -> None:
    for model in fake.models.values():
        model.is_held = True
    expect(page).to_have_url(re.compile(r"\?c=."))
    compare.ask("Go on and on")
    compare.columns[0].expect_state("streaming")
    other = ComparePage(context.new_page(), page.url)
    other.page.goto(page.url)
    other.columns[0].expect_state("streaming")
    other.columns[0].stop.click()
    compare.columns[0].expect_state("stopped")
    compare.stop_all.click()
    other.columns[3].expect_state("stopped")
    other.page.close()


def test_nothing_moves_while_answers_stream(compare: ComparePage, fake: FakeController) -> None:
    for model in fake.models.values():
        model.answer = " ".join([LONG] * 10)
        model.pieces_per_second = 200
    compare.ask("Go on and on")
    compare.columns[0].expect_state("streaming")
    boxes = [column.strip_place.bounding_box() for column in compare.columns]
    began = fake.exchanges[0].num_sent
    eventually(lambda: fake.exchanges[0].num_sent > began + 300, what="300 more words")
    assert [column.strip_place.bounding_box() for column in compare.columns] == boxes
    assert len({(box or {})["y"] for box in boxes}) == 1


def test_every_control_has_a_name_and_the_page_a_heading(
    compare: ComparePage, page: Page, picture: Path
) -> None:
    compare.upload(picture)
    compare.ask("What is it?")
    compare.columns[3].expect_state("done")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Paragone")
    nameless = """() => [...document.querySelectorAll("button, input, textarea, select")]
        .filter((e) => e.checkVisibility() && !(e.getAttribute("aria-label") || e.title
            || e.textContent.trim() || e.labels?.length || e.getAttribute("aria-labelledby")))
        .map((e) => e.outerHTML.slice(0, 200))"""
    eventually(lambda: page.evaluate(nameless) == [], what="no control without a name")
    for image in page.locator("img").all():
        assert image.get_attribute("alt") is not None
    logs = page.get_by_role("log")
    labels = [log.get_attribute("aria-label") for log in logs.all()]
    assert labels == [f"Answers of column {number}" for number in (1, 2, 3, 4)]
    # Four columns that are read out word by word at once would be noise.
    assert {log.get_attribute("aria-live") for log in logs.all()} == {"off"}
    expect(page.get_by_role("status").filter(has_text="done")).to_contain_text("Column")


def test_on_a_phone_a_tab_shows_one_column_and_the_page_keeps_its_width(
    compare: ComparePage, page: Page
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    expect(compare.tabs).to_have_count(4)
    compare.ask("What is in the picture?")
    compare.columns[0].expect_state("done")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(compare.columns[0].box).to_be_visible()
    expect(compare.columns[2].box).to_be_hidden()
    page.get_by_role("tab", name="demo-llava-4bit").click()
    expect(compare.columns[2].box).to_be_in_viewport(ratio=0.9)
    expect(compare.columns[0].box).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="demo-llava-zh")).to_be_focused()
    expect(compare.columns[3].box).to_be_visible()
    compare.columns[3].request.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_and_light_follow_the_button(compare: ComparePage, page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Switch between light and dark").click()
    eventually(lambda: page.evaluate(ground) != light)
    page.get_by_role("button", name="Switch between light and dark").click()
    eventually(lambda: page.evaluate(ground) == light)
