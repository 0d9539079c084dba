"""The Compare page as a person uses it; where things are is known here alone."""

from __future__ import annotations

import base64
from pathlib import Path

from playwright.sync_api import Locator, Page, expect


class Column:
    """One column of answers, by its place (0-based)."""

    def __init__(self, page: Page, number: int) -> None:
        self.box = page.locator(f"#lane-{number}")
        self.model = self.box.locator(".model input")
        self.stop = self.box.get_by_role("button", name=f"Stop column {number + 1}")
        self.state = page.locator(f"#state-{number} .state")
        self.answers = self.box.locator("[data-testid=bot]")
        self.questions = self.box.locator(".user-row")
        self.error = self.box.locator(".error")
        self.strip_place = page.locator(f"#figures-{number}")
        self.strip = page.locator(f"#figures-{number} .figures")

    def expect_answer(self, text: str) -> None:
        """Waits until the last answer is exactly this."""
        expect(self.answers.last).to_have_text(text)

    def figure(self, label: str) -> Locator:
        """The value of a cell of the strip."""
        cell = self.strip.locator("div").filter(has=self.strip.page.get_by_text(label, exact=True))
        return cell.locator("dd")

    def expect_state(self, state: str) -> None:
        """Waits for the state of the last answer: waiting, streaming, done, stopped, failed."""
        expect(self.strip).to_have_attribute("data-state", state)


class ComparePage:
    """The whole page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.composer = page.locator("#composer textarea")
        self.thumbnails = page.locator("#composer .thumbnail-item")
        self.notice = page.locator("#notice .notice")
        self.stop_all = page.locator("#composer").get_by_role("button", name="Stop")
        self.send = page.locator("#composer").get_by_role("button", name="Submit")
        self.columns = [Column(page, number) for number in range(4)]

    def open(self, query: str = "") -> None:
        """Loads the page and waits until it can be used."""
        self.page.goto(self.url + "/" + query)
        expect(self.columns[0].state).to_be_attached()

    def expect_columns(self, models: list[str]) -> None:
        """Waits until exactly these models are in the visible columns, in order."""
        for column, model in zip(self.columns, models, strict=False):
            expect(column.model).to_have_value(model)
            expect(column.box).to_be_visible()
        for column in self.columns[len(models) :]:
            expect(column.box).to_be_hidden()

    def upload(self, *paths: Path) -> None:
        """Chooses files as with the paper clip, and waits until they are on the server."""
        before = self.thumbnails.count()
        self.page.locator("#composer input[type=file]").set_input_files(list(paths))
        self.expect_images(before + len(paths))

    def expect_images(self, number: int) -> None:
        """Waits for so many images in the composer."""
        expect(self.thumbnails).to_have_count(number)

    def ask(self, question: str) -> None:
        """Types a question and sends it with Enter; returns once it was taken."""
        self.composer.fill(question)
        self.composer.press("Enter")
        expect(self.composer).to_have_value("")

    def transfer(self, path: Path, event: str) -> None:
        """Pastes or drops an image file into the composer (``paste`` or ``drop``)."""
        self.composer.evaluate(
            """(element, [name, data, kind]) => {
                const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, {type: "image/png"}));
                const init = {bubbles: true, cancelable: true};
                element.dispatchEvent(kind === "paste"
                    ? new ClipboardEvent("paste", {...init, clipboardData: transfer})
                    : new DragEvent("drop", {...init, dataTransfer: transfer}));
            }""",
            [path.name, base64.b64encode(path.read_bytes()).decode(), event],
        )
