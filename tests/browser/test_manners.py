"""Keys, languages, addresses, rendering, and whether everybody can use the page."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController
from tests.webui.servers import eventually

pytestmark = pytest.mark.browser
RICH = r"""# Title

| a | b |
|---|---|
| 1 | 2 |

$$\frac{1}{2}$$ and \(x^2\)

```python
print("hello")
```
"""


def test_everything_can_be_done_from_the_keyboard(
    compare: ComparePage, page: Page, fake: FakeController
) -> None:
    page.locator("#title h1").click()
    page.keyboard.press("/")
    expect(compare.composer).to_be_focused()
    page.keyboard.type("Hello / ?")
    page.keyboard.press("Enter")
    compare.expect_states("done")
    page.keyboard.press("Alt+2")
    expect(compare.columns[1].box).to_be_focused()
    page.keyboard.press("Alt+ArrowRight")
    expect(compare.columns[2].box).to_be_focused()
    page.keyboard.press("Alt+r")
    eventually(lambda: len(fake.of("demo-llava-4bit")) == 2, what="column 3 is asked again")
    answer = fake.models["demo-llava-4bit"].answer

    def copied() -> str:
        """It copies what there is of the answer, so that it is pressed until that is whole."""
        page.keyboard.press("Alt+c")
        return str(page.evaluate("navigator.clipboard.readText()"))

    eventually(lambda: copied() == answer, what="the whole answer is copied")
    page.keyboard.press("?")
    expect(compare.help).to_be_visible()
    expect(compare.help).to_contain_text("Alt + N")
    compare.close_drawer()
    page.keyboard.press("Alt+s")
    expect(compare.settings).to_be_visible()
    compare.close_drawer()
    address = page.url
    page.keyboard.press("Alt+n")
    expect(compare.columns[0].questions).to_have_count(0)
    expect(page).not_to_have_url(address)


def test_the_page_speaks_chinese_and_stays_with_it(
    page: Page, fake: FakeController, web_url: str
) -> None:
    compare = ComparePage(page, web_url)
    compare.open("?lang=zh")
    expect(page.get_by_role("button", name="新对话")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    compare.composer.fill("你好")
    compare.composer.press("Enter")
    compare.expect_states("done")
    expect(compare.columns[0].strip).to_contain_text("排队")
    expect(compare.columns[0].box.get_by_role("button", name="第 1 列重新回答")).to_be_enabled()
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("button", name="New chat")).to_be_visible()
    expect(compare.columns[0].questions).to_have_count(1)  # the same chat


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_axe_finds_nothing_serious(
    compare: ComparePage, page: Page, fake: FakeController, picture: Path, size: tuple[int, int]
) -> None:
    fake.models["demo-llava"].answer = RICH
    fake.models["demo-llava-8bit"].fault = "error_midway"
    page.set_viewport_size({"width": size[0], "height": size[1]})
    compare.upload(picture)
    compare.ask("What is it?")
    compare.columns[0].expect_state("done")
    compare.columns[1].expect_state("failed")
    compare.columns[0].press(compare.columns[0].reference)
    compare.columns[3].expect_state("done")
    compare.columns[0].press(compare.columns[0].up)
    for _ in ("light", "dark"):
        for opener in (None, compare.columns[0].note, compare.columns[0].request):
            if opener is not None:
                compare.columns[0].press(opener)
                expect(compare.panel).to_be_visible()
            _expect_no_serious_finding(page)
            if opener is not None:
                compare.close_drawer()
        compare.open_settings()
        _expect_no_serious_finding(page)
        compare.close_drawer()
        page.get_by_role("button", name="Switch between light and dark").click()


def _expect_no_serious_finding(page: Page) -> None:
    # Colours between two states are nobody's.
    still = "document.getAnimations().every((each) => each.playState !== 'running')"
    eventually(lambda: page.evaluate(still), what="nothing moves")
    findings = Axe().run(page).response["violations"]
    serious = [
        f"{finding['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for finding in findings
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
    ]
    assert serious == []


def test_an_address_opens_a_chat_with_models_question_seed_and_system_prompt(
    page: Page, fake: FakeController, web_url: str
) -> None:
    query = urlencode(
        {"models": "demo-llava-zh,demo-llava", "prompt": "a & b?", "seed": 7, "system": "Be brief."}
    )
    compare = ComparePage(page, web_url)
    compare.open("?" + query)
    compare.expect_columns(["demo-llava-zh", "demo-llava"])
    expect(compare.composer).to_have_value("a & b?")
    assert fake.exchanges == []  # others may have made the link: it asks nothing by itself
    compare.composer.press("Enter")
    compare.expect_states("done")
    for exchange in fake.exchanges:
        assert exchange.request.seed == 7
        assert [m.content for m in exchange.request.messages] == ["Be brief.", "a & b?"]


def test_llava_s_address_opens_a_plain_chat(page: Page, fake: FakeController, web_url: str) -> None:
    compare = ComparePage(page, web_url)
    compare.open("?model=demo-llava-zh")
    compare.expect_columns(["demo-llava-zh"])


def test_markdown_formulas_and_code_are_rendered_without_asking_anybody(
    compare: ComparePage, fake: FakeController, requested: list[str], web_url: str
) -> None:
    fake.models["demo-llava"].answer = RICH
    compare.ask("Hello")
    compare.columns[0].expect_state("done")
    answer = compare.columns[0].answers.first
    expect(answer.locator("table td").first).to_have_text("1")
    expect(answer.locator(".katex").first).to_be_visible()
    expect(answer.locator("code.language-python, pre code").first).to_contain_text("print")
    assert [address for address in requested if not address.startswith(web_url)] == []


def test_a_question_that_was_not_sent_survives_a_reload(compare: ComparePage, page: Page) -> None:
    compare.composer.fill("half a ques")
    page.reload()
    expect(compare.composer).to_have_value("half a ques")
    compare.ask("Hello")
    compare.expect_states("done")
    page.reload()
    expect(compare.columns[0].questions).to_have_count(1)
    expect(compare.composer).to_have_value("")
