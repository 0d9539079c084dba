"""One Chromium for all browser tests, and the page served over a pretended controller."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, eventually, web_process

_CANDIDATES = ("chromium", "chromium-browser", "google-chrome")
# What Playwright turns off and matters here, as the last such list is the one that counts; and two
# popups of the address bar, which nobody sees: pages of their own, a fifth of the work of a load.
_FEATURES_OFF = (
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
)
_ARGUMENTS = [
    "--disable-features=" + ",".join(_FEATURES_OFF),
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera that shows a moving pattern
    "--use-fake-ui-for-media-stream",  # which the person has allowed
]


def _chromium() -> str | None:
    named = os.environ.get("PARAGONE_CHROMIUM")
    return named or next((path for name in _CANDIDATES if (path := shutil.which(name))), None)


# Of the package and not of the session: while Playwright runs, its event loop counts as running
# in this thread, and no asynchronous test could start its own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = _chromium()
    if path is None:
        reason = "no Chromium: install it (Debian: apt install chromium) or set PARAGONE_CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one example image and two questions about it."""
    folder = tmp_path_factory.mktemp("examples")
    Image.new("RGB", (90, 60), (30, 60, 200)).save(folder / "blue.png")
    prompts = [{"prompt": "Which colour is it?"}, {"prompt": "How large is it?"}]
    content = {"about": "They know blue.", "examples": [{"image": "blue.png", "prompts": prompts}]}
    (folder / "examples.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="package")
def served(examples: Path) -> Iterator[tuple[FakeController, str]]:
    """The pretended controller's state, and the address of the page over it."""
    fake = FakeController()
    # Gradio works 50 to 100 ms in a tab with each look at the fleet.
    flags = ("--refresh-seconds", "1", "--examples", str(examples), "--unwatched-seconds", "1")
    with ThreadedServer(fake.app()) as controller, web_process(controller.url, *flags) as (url, _):
        yield fake, url


@pytest.fixture
def fake(served: tuple[FakeController, str]) -> FakeController:
    """The pretended controller, with four ready models."""
    state, _ = served
    state.models = demo_models(pieces_per_second=200)  # each word is work for a browser
    state.exchanges = []
    return state


@pytest.fixture
def web_url(served: tuple[FakeController, str]) -> str:
    return served[1]


def wait_for_models(url: str, names: Iterable[str]) -> None:
    """Waits until the page's own watch of the fleet knows these models, and nobody else."""

    def known() -> list[str]:
        html = httpx.get(url + "/cluster/live", trust_env=False, timeout=60).text
        return sorted(re.findall(r'<th scope="row"[^>]*>([^<]+)<', html))

    eventually(lambda: known() == sorted(names), what=f"the page knows {', '.join(names)}")


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests, so that Gradio's files come from its cache; tabs share nothing else."""
    opened = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    opened.set_default_timeout(60_000)
    opened.grant_permissions(["clipboard-read", "clipboard-write"])
    expect.set_options(timeout=60_000)  # reached in failure alone: two busy cores are slow
    yield opened
    opened.close()


@pytest.fixture
def requested() -> list[str]:
    """Every address that the tab asked for, inline data aside."""
    return []


@pytest.fixture
def page(context: BrowserContext, requested: list[str], web_url: str) -> Iterator[Page]:
    """A tab. No test may leave an error in it, or have made it ask another host."""
    tab = context.new_page()
    errors: list[str] = []

    def note_request(request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            requested.append(request.url)

    def note_error(error: Error) -> None:
        errors.append(str(error))

    tab.on("request", note_request)
    tab.on("pageerror", note_error)
    yield tab
    tab.close()
    assert errors == []
    assert [address for address in requested if not address.startswith(web_url)] == []


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small red image."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(path)
    return path


@pytest.fixture
def compare(page: Page, fake: FakeController, web_url: str) -> ComparePage:
    """The page, open, with four columns."""
    opened = ComparePage(page, web_url)
    opened.open()
    opened.expect_columns(list(fake.models))
    return opened
