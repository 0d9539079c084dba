"""The Compare page as a person uses it; where things are is known here alone."""

from __future__ import annotations

import base64
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

PLACES = 6


class Column:
    """One column of answers, by its place (0-based)."""

    def __init__(self, page: Page, place: int) -> None:
        number = place + 1
        self.box = page.locator(f"#lane-{place}")
        self.model = self.box.locator(".model input")
        self.state = page.locator(f"#state-{place} .state")
        self.answers = self.box.locator("[data-testid=bot]")
        self.questions = self.box.locator(".user-row")
        self.error = self.box.locator(".chat .error")
        self.marks = self.box.locator(".diff mark")
        self.agreement = self.box.locator(".agreement")
        self.strip_place = page.locator(f"#figures-{place}")
        self.strip = page.locator(f"#figures-{place} .figures")
        self.stop = self._button(f"Stop column {number}")
        self.retry = self._button(f"Ask column {number} again")
        self.resume = self._button(f"Continue the answer of column {number}")
        self.copy = self._button(f"Copy the answer of column {number}")
        self.up = self._button(f"Good answer in column {number}")
        self.down = self._button(f"Bad answer in column {number}")
        self.flag = self._button(f"Flag the answer of column {number}")
        self.note = self._button(f"Note on the answer of column {number}")
        self.request = self._button(f"The exact request of column {number}")
        self.sees = self._button(f"What the model of column {number} sees")
        self.settings = self.box.locator("[data-act=settings]")
        self.reference = self.box.locator("[data-act=reference]")
        self.right = self.box.locator("[data-act=right]")
        self.remove = self.box.locator("[data-act=remove]")

    def _button(self, name: str) -> Locator:
        return self.box.get_by_role("button", name=name, exact=True)

    def press(self, tool: Locator) -> None:
        """Presses one of the buttons that show themselves to who is at the column."""
        self.box.hover()
        tool.click()

    def expect_answer(self, text: str) -> None:
        """Waits until the last answer is exactly this."""
        expect(self.answers.last).to_have_text(text)

    def figure(self, label: str) -> Locator:
        """The value of a cell of the strip."""
        cell = self.strip.locator("div").filter(has=self.strip.page.get_by_text(label, exact=True))
        return cell.locator("dd")

    def expect_state(self, state: str) -> None:
        """Waits for the state of the last answer: waiting, streaming, done, stopped, ..."""
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
        self.settings = page.locator("#settings")
        self.panel = page.locator("#panel")
        self.help = page.locator("#help")
        self.tabs = page.get_by_role("tab")
        self.places = [Column(page, place) for place in range(PLACES)]
        self.columns = self.places[:4]  # as many as the fleet under test has models

    def open(self, query: str = "") -> None:
        """Loads the page and waits until it can be used."""
        self.page.goto(self.url + "/" + query)
        expect(self.columns[0].state).to_be_attached()

    def expect_columns(self, models: list[str]) -> None:
        """Waits until exactly these models are in the visible columns, in order."""
        for column, model in zip(self.places, models, strict=False):
            expect(column.model).to_have_value(model)
            expect(column.box).to_be_visible()
        for column in self.places[len(models) :]:
            expect(column.box).to_be_hidden()

    def show_columns(self, number: int) -> None:
        """Presses the number of columns in the head."""
        self.page.get_by_role("button", name=f"{number} columns", exact=True).click()
        expect(self.places[number - 1].box).to_be_visible()

    def upload(self, *paths: Path) -> None:
        """Chooses files as with the paper clip, and waits until they are on the server."""
        before = self.thumbnails.count()
        self.page.locator("#composer input[type=file]").set_input_files(list(paths))
        self.expect_images(before + len(paths))

    def expect_images(self, number: int) -> None:
        """Waits for so many images in the composer."""
        expect(self.thumbnails).to_have_count(number)

    def expect_states(self, state: str) -> None:
        """Waits for one state of the last answers of all columns that are shown."""
        for column in self.places:
            if column.box.is_visible():
                column.expect_state(state)

    def ask(self, question: str) -> None:
        """Types a question and sends it with Enter; returns once it was taken."""
        self.composer.fill(question)
        self.composer.press("Enter")
        expect(self.composer).to_have_value("")

    def open_settings(self) -> None:
        """Opens the drawer of settings, for all columns or the one it was about last."""
        self.page.get_by_role("button", name="Settings", exact=True).click()
        expect(self.settings).to_be_visible()

    def set(self, label: str, value: str) -> None:
        """Types one setting in the open drawer."""
        box = self.settings.get_by_role("textbox", name=label)
        box.fill("")
        box.press_sequentially(value)

    def close_drawer(self) -> None:
        """Closes whatever drawer is open, and waits for it."""
        self.page.keyboard.press("Escape")
        for drawer in (self.settings, self.panel, self.help):
            expect(drawer).to_be_hidden()

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
