"""Images by their address, as a person adds them: with the keyboard, and told what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from controller.protocol.chat import ImagePart
from tests.browser.compare_page import ComparePage
from tests.webui.fake_controller import FakeController
from tests.webui.servers import eventually

pytestmark = pytest.mark.browser


def test_an_image_is_added_by_its_address_from_the_keyboard_alone(
    compare: ComparePage, page: Page, fake: FakeController, picture: Path
) -> None:
    compare.composer.fill("What is it?")
    page.keyboard.press("Alt+u")
    dialog = page.get_by_role("dialog", name="Image by its address")
    field = dialog.get_by_label("Address of an image")
    expect(field).to_be_focused()
    # This machine's own controller is what a stranger would like to be fetched.
    field.fill("http://127.0.0.1:21001/fleet/workers")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("private network")
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(compare.composer).to_be_focused()

    # Instead of a host in the internet; the fetching itself has its own tests.
    def answer(route: Route) -> None:
        assert route.request.post_data_json == {"address": "https://pictures.test/a%20b.jpg?x=1"}
        route.fulfill(body=picture.read_bytes(), content_type="image/png")

    page.route("**/fetch-image", answer)
    page.keyboard.press("Alt+u")
    field.fill("https://pictures.test/a%20b.jpg?x=1")
    page.keyboard.press("Enter")
    compare.expect_images(1)
    expect(compare.composer).to_be_focused()
    expect(compare.composer).to_have_value("What is it?")
    page.keyboard.press("Enter")
    compare.expect_states("done")
    content = fake.of("demo-llava")[0].request.messages[-1].content
    assert any(isinstance(part, ImagePart) for part in content)
    expect(compare.columns[0].questions.locator("img")).to_have_attribute(
        "alt", "image 1 of the question: a b.png"
    )


def test_the_control_speaks_chinese_and_is_in_battles_too(
    page: Page, fake: FakeController, picture: Path, web_url: str
) -> None:
    compare = ComparePage(page, web_url)
    compare.open("?lang=zh")
    page.get_by_role("button", name="通过网址添加图片").click()
    dialog = page.get_by_role("dialog", name="通过网址添加图片")
    dialog.get_by_label("图片网址").fill("http://localhost:1/x.png")
    dialog.get_by_role("button", name="添加图片").click()
    expect(dialog.get_by_role("alert")).to_contain_text("无法获取图片")
    dialog.get_by_role("button", name="取消").click()
    page.route(
        "**/fetch-image",
        lambda route: route.fulfill(body=picture.read_bytes(), content_type="image/png"),
    )
    page.goto(web_url + "/battle?lang=en")
    page.get_by_role("button", name="Image by address").click()
    page.get_by_label("Address of an image").fill("https://pictures.test/cat.png")
    page.keyboard.press("Enter")
    chosen = "document.querySelector('#ask input[type=file]').files[0]?.name"
    expect(page.get_by_role("dialog")).to_have_count(0)
    eventually(lambda: page.evaluate(chosen) == "cat.png")
    page.locator("#ask input[type=file]").set_input_files(picture)  # instead of it
    assert page.evaluate(chosen) == "picture.png"
    page.get_by_role("button", name="Remove the image: picture.png").click()
    expect(page.locator(".chosen button")).to_have_count(0)
    assert page.evaluate(chosen) is None
