"""One browser: first paint, how late the end of a long answer is shown, and how busy it is."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from typing import Any

from playwright.sync_api import CDPSession, sync_playwright

_GAPS = """() => {
  window.__times = [0, 1, 2, 3].map(() => []);
  for (let place = 0; place < 4; place++)
    new MutationObserver(() => window.__times[place].push(performance.now())).observe(
      document.querySelector(`#chat-${place}`),
      { childList: true, characterData: true, subtree: true });
}"""


def watch(url: str, *, seconds: float, columns: int) -> dict[str, float]:
    """Figures of one question whose answers take so long, over so many healthy columns."""
    chromium = os.environ.get("PARAGONE_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_selector("#state-0 .state[data-kind=ready]")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.evaluate(_GAPS)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        page.locator("#composer textarea").fill("What is it?")
        # From the key and not from the first word: what it takes to begin counts as late.
        began, busy = page.evaluate("performance.now()"), _busy(session)
        page.locator("#composer textarea").press("Enter")
        for place in range(columns):
            page.wait_for_selector(
                f"#figures-{place} [data-state=done]", timeout=seconds * 5000 + 30_000
            )
        took = (page.evaluate("performance.now()") - began) / 1000
        share = (_busy(session) - busy) / took
        times: list[list[float]] = page.evaluate("window.__times")
        browser.close()
    gaps = sorted(
        later - earlier
        for each in times[:columns]
        for earlier, later in pairwise(each)
        if later - earlier > 20  # one update changes the page several times
    )
    return {
        "first paint, ms": paint,
        "late, s": took - seconds,
        "main thread busy, %": share * 100,
        "median gap, ms": gaps[len(gaps) // 2],
    }


def _busy(session: CDPSession) -> float:
    """Seconds for which the main thread has worked so far."""
    metrics: list[dict[str, Any]] = session.send("Performance.getMetrics")["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")
