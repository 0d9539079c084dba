"""What an operator's flags make of the page, seen in a browser: one test a flag."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.path_proxy import path_proxy
from tests.webui.servers import ThreadedServer, web_process

pytestmark = pytest.mark.browser
PREFIX = "/lab/paragone"


@pytest.fixture(scope="module")
def behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[FakeController, str]]:
    """A page under a path, with a login, terms, house rules and a list of models of the start."""
    logins = tmp_path_factory.mktemp("logins") / "logins"
    logins.write_text("ann:sesame", encoding="utf-8")
    fake = FakeController(demo_models())
    flags = (
        *("--root-path", PREFIX, "--gradio-auth-path", str(logins)),
        *("--terms", "<p>Ask <b>kindly</b>.</p>", "--model-list-mode", "once"),
        *("--moderate", "tests.webui.house_rules:no_unicorns", "--refresh-seconds", "1"),
    )
    with (
        ThreadedServer(fake.app()) as controller,
        web_process(controller.url, *flags) as (url, _),
        ThreadedServer(path_proxy(url, PREFIX)) as proxy,
    ):
        yield fake, proxy.url + PREFIX


@pytest.fixture(scope="module")
def framed() -> Iterator[tuple[FakeController, str]]:
    """A page for a frame, that answers one question at a time and fetches no images."""
    fake = FakeController(demo_models())
    flags = ("--embed", "--concurrency-count", "1", "--allow-remote-images", "none")
    with ThreadedServer(fake.app()) as controller, web_process(controller.url, *flags) as (url, _):
        yield fake, url


@pytest.fixture(scope="module")
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of its own, as these pages have cookies that the others' should not get."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB")
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield context
    context.close()


@pytest.fixture
def tab(visitor: BrowserContext) -> Iterator[Page]:
    """A tab of it; no test may leave an error in it, or miss a file."""
    opened = visitor.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "response",
        lambda reply: reply.status in (404, 500) and wrong.append(f"{reply.status} {reply.url}"),
    )
    yield opened
    opened.close()
    assert wrong == []


def _logged_in(tab: Page, url: str) -> ComparePage:
    tab.goto(url + "/")
    if tab.get_by_label("Password").count():
        tab.get_by_label("Name").fill("ann")
        tab.get_by_label("Password").fill("sesame")
        tab.keyboard.press("Enter")
    page = ComparePage(tab, url)
    expect(page.columns[3].state).to_have_attribute("data-kind", "ready")
    return page


def test_gradio_auth_path_asks_for_a_password_before_anything_is_shown(
    behind: tuple[FakeController, str], tab: Page
) -> None:
    _, url = behind
    tab.goto(url + "/history")
    expect(tab.get_by_role("heading")).to_have_text("Paragone")
    tab.get_by_label("Name").fill("ann")
    tab.get_by_label("Password").fill("wrong")
    tab.get_by_role("button", name="Log in").click()
    expect(tab.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    assert _logged_in(tab, url).page.url.startswith(url + "/")
    tab.goto(url + "/history")
    expect(tab.get_by_role("heading", level=1)).to_have_text("History")


def test_root_path_puts_every_view_image_and_link_under_the_path(
    behind: tuple[FakeController, str], tab: Page, picture: Path
) -> None:
    _, url = behind
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    page = _logged_in(tab, url)
    page.upload(picture)
    page.ask("What is it?")
    page.expect_states("done")
    image = page.columns[0].questions.locator("img.picture")
    expect(image).not_to_have_js_property("naturalWidth", 0)
    expect(tab).to_have_url(re.compile(re.escape(url) + r"/\?c=."))
    identity = tab.url.rpartition("=")[2]
    for view in ("Battle", "Leaderboard", "History", "Cluster"):
        tab.get_by_role("link", name=view, exact=True).click()
        expect(tab).to_have_url(f"{url}/{view.lower()}")
        expect(tab.get_by_role("heading", level=1)).to_have_text(view)
        tab.get_by_role("link", name="Compare", exact=True).click()
        expect(page.columns[0].state).to_be_visible()
    tab.goto(f"{url}/c/{identity}")
    expect(page.columns[0].questions).to_have_count(1)
    tab.reload()
    expect(page.columns[0].questions).to_have_count(1)
    tab.goto(f"{url}/battle")
    tab.locator("#ask textarea").fill("Which is better?")
    tab.keyboard.press("Enter")
    expect(tab.locator("#side-1 .answer")).to_have_attribute("data-state", "done")
    outside = [each for each in asked if not each.startswith((url + "/", "data:", "blob:"))]
    assert outside == []


def test_terms_stand_where_questions_are_asked(
    behind: tuple[FakeController, str], tab: Page
) -> None:
    _, url = behind
    _logged_in(tab, url)
    expect(tab.locator("#terms b")).to_have_text("kindly")
    expect(tab.locator("#terms")).to_be_in_viewport(ratio=1)
    tab.goto(url + "/battle")
    expect(tab.locator(".terms b")).to_be_in_viewport(ratio=1)


def test_moderate_refuses_a_question_with_its_reason_and_keeps_it_composed(
    behind: tuple[FakeController, str], tab: Page
) -> None:
    fake, url = behind
    page = _logged_in(tab, url)
    before = len(fake.exchanges)
    page.composer.fill("Where is the Unicorn?")
    page.composer.press("Enter")
    expect(page.notice).to_have_text("No unicorns in this house.")
    expect(page.composer).to_have_value("Where is the Unicorn?")
    assert len(fake.exchanges) == before
    page.ask("Where is the horse?")
    page.expect_states("done")
    tab.goto(url + "/battle")
    tab.locator("#ask textarea").fill("Where is the Unicorn?")
    tab.keyboard.press("Enter")
    expect(tab.locator("#problem")).to_have_text("No unicorns in this house.")


def test_model_list_mode_once_keeps_the_list_of_the_start(
    behind: tuple[FakeController, str], tab: Page
) -> None:
    fake, url = behind
    page = _logged_in(tab, url)
    names = list(fake.models)
    new = demo_models()["demo-llava"]
    new.card = new.card.model_copy(update={"name": "a-newcomer"})
    fake.models["a-newcomer"] = new
    fake.models["demo-llava-zh"].is_live = False
    try:
        expect(page.columns[3].state).to_have_attribute("data-kind", "gone")
        tab.reload()
        expect(page.columns[3].state).to_have_attribute("data-kind", "gone")
        page.columns[0].model.click()
        shown = [re.compile(name + "$") for name in names[:3]]
        expect(tab.get_by_role("option")).to_have_text(
            [*shown, re.compile(r"demo-llava-zh \(gone\)$")]
        )
    finally:
        fake.models["demo-llava-zh"].is_live = True
        del fake.models["a-newcomer"]


def test_embed_leaves_the_columns_and_the_composer_in_another_site_s_frame(
    framed: tuple[FakeController, str], tab: Page
) -> None:
    _, url = framed
    tab.set_content(f'<iframe src="{url}/" style="width:1000px;height:800px"></iframe>')
    frame = tab.frame_locator("iframe")
    expect(frame.locator("#state-0 .state")).to_have_attribute("data-kind", "ready")
    expect(frame.locator("h1")).to_be_hidden()
    expect(frame.locator("nav.views")).to_be_hidden()
    frame.locator("#composer textarea").fill("What is it?")
    frame.locator("#composer textarea").press("Enter")
    for place in range(4):
        strip = frame.locator(f"#figures-{place} .figures")
        expect(strip).to_have_attribute("data-state", "done")
    # Our own buttons work too, although the browser keeps nothing for a frame.
    frame.get_by_role("button", name="Good answer in column 1").click()
    good = frame.get_by_role("button", name="Good answer in column 1")
    expect(good).to_have_attribute("aria-pressed", "true")


def test_allow_remote_images_none_takes_the_button_away(
    framed: tuple[FakeController, str], tab: Page
) -> None:
    _, url = framed
    page = ComparePage(tab, url)
    page.open()
    expect(tab.get_by_role("button", name="Take a picture with the camera")).to_be_visible()
    expect(tab.get_by_role("button", name="Add an image by its address")).to_have_count(0)
    asked = tab.request.post(url + "/fetch-image", data={"address": "https://example.org/x.png"})
    assert asked.status in (404, 405)


def test_concurrency_count_says_that_others_are_being_answered(
    framed: tuple[FakeController, str], tab: Page, visitor: BrowserContext
) -> None:
    fake, url = framed
    for model in fake.models.values():
        model.is_held = True
    first = ComparePage(tab, url)
    first.open()
    first.ask("Go on and on")
    first.columns[0].expect_state("streaming")
    second = ComparePage(visitor.new_page(), url)
    second.open()
    second.composer.fill("And me?")
    second.composer.press("Enter")
    expect(second.notice).to_contain_text("busy")
    expect(second.composer).to_have_value("And me?")
    first.stop_all.click()
    first.columns[3].expect_state("stopped")
    for model in fake.models.values():
        model.answer, model.is_held = "Yes.", False
    second.composer.press("Enter")
    second.columns[0].expect_answer("Yes.")
    second.page.close()
