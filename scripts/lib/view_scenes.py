"""What the plain views show on their pictures: chats in the history, votes, a battle under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, FilePayload, Page, expect

EXAMPLES = Path(__file__).resolve().parents[2] / "webui" / "examples"
NUM_VOTES = 14
ANSWER_MILLISECONDS = 60_000


def examples() -> list[dict[str, Any]]:
    """The example images with their questions and right answers."""
    content = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = content["examples"]
    return found


def fill(context: BrowserContext, url: str) -> None:
    """Chats of a person, one of them pinned, and votes of theirs."""
    page = context.new_page()
    for number in (1, 2, 3):
        page.goto(f"{url}/")
        wait_until_ready(page)
        page.locator(f"#examples [data-value='{number}.0']").first.click()
        expect(page.locator("#composer .thumbnail-item")).to_have_count(1)
        page.locator("#composer textarea").press("Enter")
        wait_for_answers(page)
    page.goto(f"{url}/history")
    page.locator(".chats li").last.get_by_role("button", name="Pin").click()
    expect(page.locator(".chats li[data-pinned=true]")).to_have_count(1)
    page.goto(f"{url}/battle")
    for number in range(NUM_VOTES):
        _vote(page, url, number)
    page.close()


def _vote(page: Page, url: str, number: int) -> None:
    """A battle over one example; whoever gives its right answer in English wins."""
    shown = examples()
    example = shown[number % len(shown)]
    prompt = example["prompts"][number % len(example["prompts"])]
    image = EXAMPLES / example["image"]
    upload = FilePayload(name=image.name, mimeType="image/png", buffer=image.read_bytes())
    begun = page.request.post(
        f"{url}/battle", multipart={"text": prompt["prompt"], "files": upload}
    ).json()
    battle = f"{url}/battle/{begun['battle']}"
    page.request.get(f"{battle}/stream", timeout=ANSWER_MILLISECONDS)
    sides = page.request.get(battle).json()["turns"][-1]["sides"]
    left, right = (prompt["answer_en"] in side["html"] for side in sides)
    winner = "tie" if left and right else "left" if left else "right" if right else "bothbad"
    page.request.post(f"{battle}/vote", data={"winner": winner, "reasons": ["correct"]})


def ask_in_battle(page: Page) -> None:
    """A question about an image to both models, answered."""
    example = examples()[0]
    page.locator("#ask input[type=file]").set_input_files(EXAMPLES / example["image"])
    page.locator("#ask textarea").fill(example["prompts"][0]["prompt"])
    page.locator("#ask textarea").press("Enter")
    for side in (0, 1):
        answer = page.locator(f"#side-{side} .answer")
        expect(answer).to_have_attribute("data-state", "done", timeout=ANSWER_MILLISECONDS)


def vote_in_battle(page: Page) -> None:
    """Asks, and votes."""
    ask_in_battle(page)
    page.locator("[data-reason=correct]").click()
    page.locator("[data-vote=tie]").click()
    expect(page.locator("#verdict a")).to_be_visible()


def wait_until_ready(page: Page) -> None:
    """Until the page is there, and the first column's model takes questions."""
    expect(page.locator("#state-0 .state")).to_have_attribute("data-kind", "ready", timeout=60_000)


def wait_for_answers(page: Page) -> None:
    """Until the question was taken, and then every visible column has answered it."""
    expect(page.locator("#composer textarea")).to_have_value("")
    for place in range(page.locator("[data-tab]").count()):
        strip = page.locator(f"#figures-{place} .figures")
        expect(strip).to_have_attribute("data-state", "done", timeout=ANSWER_MILLISECONDS)
