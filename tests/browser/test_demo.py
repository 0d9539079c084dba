"""The page over the real demo fleet: right answers in four columns, and a Stop in mid-answer."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as NotInTimeError

from tests.browser.compare_page import ComparePage
from tests.demo_fleet import DemoFleet
from tests.webui.servers import eventually
from webui.gallery import Gallery, read_gallery
from webui.settings import WebSettings

pytestmark = [pytest.mark.browser, pytest.mark.fleet, pytest.mark.timeout(600)]
FOLDER: Path = WebSettings.model_fields["examples"].default
SECONDS = 120  # four models on two cores that may have other work


@pytest.fixture
def web_url(demo_fleet: DemoFleet) -> str:
    demo_fleet.wait_until_complete()
    return demo_fleet.web_url


@pytest.fixture
def demo(page: Page, demo_fleet: DemoFleet, web_url: str) -> ComparePage:
    """The demo's page, open, with its four models in the order of the fleet file."""
    opened = ComparePage(page, web_url)
    opened.open()
    opened.expect_columns(demo_fleet.models)
    for column in opened.columns:
        expect(column.state).to_have_attribute("data-kind", "ready", timeout=SECONDS * 1000)
    return opened


@pytest.fixture
def gallery() -> Gallery:
    found = read_gallery(FOLDER)
    assert found.about
    assert found.examples
    return found


def test_an_uploaded_image_and_a_question_fill_four_columns_with_the_right_answers(
    demo: ComparePage, demo_fleet: DemoFleet, gallery: Gallery
) -> None:
    example = gallery.examples[0]
    demo.upload(FOLDER / example.image)
    for prompt in example.prompts[:2]:  # the second is about the same image, a turn later
        demo.ask(prompt.prompt)
        for model, column in zip(demo_fleet.models, demo.columns, strict=True):
            expect(column.strip).to_have_attribute("data-state", "done", timeout=SECONDS * 1000)
            right = prompt.answer_zh if model.endswith("-zh") else prompt.answer_en
            assert right
            column.expect_answer(right)
            expect(column.figure("image")).to_have_text("64")
            expect(column.figure("finish")).to_have_text("stop")


def test_stop_in_mid_answer_ends_the_generation_in_the_workers(
    demo: ComparePage, demo_fleet: DemoFleet, page: Page
) -> None:
    # Hot sampling goes on for long, as a rule. A small model ends some answers before a hand
    # reaches the button, at times all of them: then they are asked for again.
    demo.open_settings()
    demo.set("Temperature", "2")
    demo.set("Max tokens", "900")
    demo.close_drawer()
    for turn in range(30):
        before = _figures(demo_fleet, "request_aborted_total")
        demo.ask("Tell me a very long story about everything you know.")
        eventually(lambda n=turn: page.evaluate(_ANSWERS_COME, n), what="an answer begins")
        with contextlib.suppress(NotInTimeError):  # all have ended, and the button is gone
            demo.stop_all.click(timeout=2000)
        expect(demo.send).to_be_visible(timeout=SECONDS * 1000)
        eventually(
            lambda: not any(_figures(demo_fleet, "num_requests_running")),
            what="no worker generates",
        )
        after = _figures(demo_fleet, "request_aborted_total")
        for column, early, late in zip(demo.columns, before, after, strict=True):
            expect(column.strip).to_have_attribute("data-state", re.compile("^(done|stopped)$"))
            is_stopped = column.strip.get_attribute("data-state") == "stopped"
            # No answer that ended by itself was cut short in its worker: one that was will do.
            if is_stopped and late > early and column.answers.last.inner_text():
                return
    pytest.fail("no answer was cut short in its worker: each ended by itself, or Stop does nothing")


# Some column shows text in the turn of this number, or all of its answers have ended.
_ANSWERS_COME = """(turn) => {
    const lanes = [...document.querySelectorAll(".lane")];
    const send = document.querySelector("#composer .submit-button");
    return lanes.some((lane) => lane.querySelectorAll("[data-testid=bot]")[turn]?.textContent)
        || (lanes[0].querySelectorAll(".user-row").length > turn && send?.checkVisibility());
}"""


def _figures(fleet: DemoFleet, name: str) -> list[float]:
    """One of the figures that each worker keeps of itself, in the order of the models."""
    figures = []
    for url in fleet.worker_urls.values():
        text = httpx.get(url + "/metrics", trust_env=False, timeout=SECONDS).text
        lines = [line for line in text.splitlines() if line.startswith(f"paragone_worker_{name}")]
        figures.append(sum(float(line.rpartition(" ")[2]) for line in lines))
    return figures


def test_continue_goes_on_where_an_answer_ran_into_its_limit(
    demo: ComparePage, demo_fleet: DemoFleet, gallery: Gallery
) -> None:
    example = gallery.examples[0]
    prompt = example.prompts[0]
    demo.open_settings()
    demo.set("Max tokens", "12")
    demo.close_drawer()
    demo.upload(FOLDER / example.image)
    demo.ask(prompt.prompt)
    for column in demo.columns:
        expect(column.strip).to_have_attribute("data-state", "done", timeout=SECONDS * 1000)
        expect(column.figure("finish")).to_have_text("length")
    for model, column in zip(demo_fleet.models, demo.columns, strict=True):
        # The whole answer in the end, as if nothing had come between.
        right = prompt.answer_zh if model.endswith("-zh") else prompt.answer_en
        assert right
        for _ in right:  # each time by as many tokens as the limit allows
            begun = column.answers.last.inner_text()
            assert right.startswith(begun)
            if begun == right:
                break
            column.press(column.resume)
            expect(column.answers.last).not_to_have_text(begun, timeout=SECONDS * 1000)
            expect(column.strip).to_have_attribute("data-state", "done", timeout=SECONDS * 1000)
        column.expect_answer(right)
        expect(column.figure("finish")).to_have_text("stop")
        expect(column.answers).to_have_count(1)
