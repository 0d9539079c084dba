"""Takes pictures of the running page: a question about an example image, answered by each model.

The plain views (battle, leaderboard, history, cluster) are pictured after some chats and votes.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright
from view_scenes import (
    ANSWER_MILLISECONDS,
    ask_in_battle,
    examples,
    fill,
    vote_in_battle,
    wait_for_answers,
    wait_until_ready,
)

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
DEMO = ROOT / "configs" / "demo.yaml"
START_SECONDS = 300  # four processes import torch
SETTLE_MILLISECONDS = 3500  # the heads show the workers' load a heartbeat and two polls late


@dataclass(frozen=True)
class Shot:
    """One picture: its name, the window that it is taken in, and what is done before."""

    name: str
    width: int = 1440
    height: int = 900
    colour_scheme: Literal["light", "dark"] = "light"
    query: str = ""
    view: str = ""  # a plain view
    is_whole: bool = False  # from top to bottom, also what the window does not show
    prepare: Callable[[Page], None] = lambda _: None


def mark_differences(page: Page) -> None:
    press(page, "#lane-0", "reference")
    expect(page.locator(".agreement").first).to_be_visible()


def show_what_the_model_sees(page: Page) -> None:
    press(page, "#lane-0", "sees")
    expect(page.locator("#panel figure img").first).to_be_visible(timeout=ANSWER_MILLISECONDS)


def show_the_request(page: Page) -> None:
    press(page, "#lane-2", "request")
    expect(page.locator("#panel .code").first).to_be_visible(timeout=ANSWER_MILLISECONDS)


def show_a_column_s_settings(page: Page) -> None:
    press(page, "#lane-1", "settings")
    expect(page.locator("#settings-head [data-value='1'][aria-pressed=true]")).to_be_visible()


SHOTS = (
    Shot("compare", prepare=mark_differences),
    Shot("compare-dark", colour_scheme="dark"),
    Shot("compare-phone", 390, 844),
    Shot("compare-chinese", query="?lang=zh"),
    Shot("compare-sees", prepare=show_what_the_model_sees),
    Shot("compare-request", prepare=show_the_request),
    Shot("compare-settings", prepare=show_a_column_s_settings),
    Shot("battle", height=760, view="battle", prepare=ask_in_battle),
    Shot("battle-voted", height=760, view="battle", prepare=vote_in_battle),
    Shot("battle-phone", 390, 844, "dark", view="battle", is_whole=True, prepare=ask_in_battle),
    Shot("leaderboard", height=760, view="leaderboard", is_whole=True),
    Shot("leaderboard-dark", height=760, colour_scheme="dark", view="leaderboard", is_whole=True),
    Shot("leaderboard-phone", 390, 844, view="leaderboard", is_whole=True),
    Shot("history", height=560, view="history"),
    Shot("history-phone", 390, 844, view="history"),
    Shot("cluster", height=640, view="cluster", is_whole=True),
    Shot("cluster-dark", height=640, colour_scheme="dark", view="cluster", is_whole=True),
    Shot("cluster-phone", 390, 844, view="cluster"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", help="a running page; without it the demo is started")
    parser.add_argument("--only", default="", help="names of pictures begin so")
    arguments = parser.parse_args()
    url: str | None = arguments.url
    shots = [shot for shot in SHOTS if shot.name.startswith(arguments.only)]
    IMAGES.mkdir(parents=True, exist_ok=True)
    if url is not None:
        take_all(url.rstrip("/"), shots)
        return
    with running_demo() as address:
        take_all(address, shots)


def take_all(url: str, shots: list[Shot]) -> None:
    """Pictures of the page at an address."""
    chromium = os.environ.get("PARAGONE_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        person: StorageState | None = None  # whose chats and votes the plain views show
        for shot in shots:
            if shot.view and person is None:
                with opened(browser, shot) as context:
                    fill(context, url)
                    person = context.storage_state()
            with opened(browser, shot, person if shot.view else None) as context:
                (take_view if shot.view else take)(context.new_page(), url, shot)
            print(f"wrote docs/images/{shot.name}.png", flush=True)
        browser.close()


@contextmanager
def opened(
    browser: Browser, shot: Shot, person: StorageState | None = None
) -> Iterator[BrowserContext]:
    """A browser of its own, so that no choice of language is left from another picture."""
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.colour_scheme,
        locale="en-GB",
        storage_state=person,
    )
    try:
        yield context
    finally:
        context.close()


def take_view(page: Page, url: str, shot: Shot) -> None:
    """One picture of a plain view."""
    page.goto(f"{url}/{shot.view}")
    shot.prepare(page)
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    keep(page, shot)


def take(page: Page, url: str, shot: Shot) -> None:
    """One picture, after the questions about the first example image."""
    page.goto(f"{url}/{shot.query}")
    wait_until_ready(page)
    prompts = examples()[0]["prompts"]
    page.locator("#examples [data-value='0.0']").first.click()
    expect(page.locator("#composer .thumbnail-item")).to_have_count(1)
    page.locator("#composer textarea").press("Enter")
    wait_for_answers(page)
    for prompt in prompts[1:]:
        page.locator("#composer textarea").fill(prompt["prompt"])
        page.locator("#composer textarea").press("Enter")
        wait_for_answers(page)
    shot.prepare(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    keep(page, shot)


def keep(page: Page, shot: Shot) -> None:
    """Writes the picture with a palette, which a page of few colours does not show."""
    taken = Image.open(io.BytesIO(page.screenshot(full_page=shot.is_whole))).convert("RGB")
    few = taken.quantize(256, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{shot.name}.png", optimize=True)


def press(page: Page, lane: str, act: str) -> None:
    """Presses a button of a column, which shows itself to who is there."""
    page.locator(lane).hover()
    page.locator(f"{lane} [data-act={act}]").click()


@contextmanager
def running_demo() -> Iterator[str]:
    """The demo fleet on free ports, ready; the address of its page."""
    spec = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    for process, port in zip(_processes(spec), _free_ports(len(_processes(spec))), strict=True):
        process["port"] = port
    for worker in spec["workers"]:
        for key in ("model_path", "model_base"):
            if key in worker:
                worker[key] = str((DEMO.parent / worker[key]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.yaml"
        path.write_text(yaml.safe_dump(spec), encoding="utf-8")
        command = [sys.executable, "-m", "controller.cli", "up", str(path)]
        # Pictures leave no chats behind.
        fleet = subprocess.Popen(command, env={**os.environ, "XDG_STATE_HOME": folder})
        try:
            controller = f"http://127.0.0.1:{spec['controller']['port']}"
            _wait_for_models(fleet, controller, {worker["name"] for worker in spec["workers"]})
            yield f"http://127.0.0.1:{spec['web']['port']}"
        finally:
            fleet.terminate()  # a shell that runs this in the background has SIGINT ignored
            fleet.wait()


def _processes(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["controller"], spec["web"], *spec["workers"]]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def _wait_for_models(fleet: subprocess.Popen[bytes], controller: str, wanted: set[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if fleet.poll() is not None:
            sys.exit("the demo fleet has ended; its output above says why")
        try:
            reply = httpx.get(controller + "/v1/models", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.5)
            continue
        if {entry["id"] for entry in reply.json()["data"]} == wanted:
            return
        time.sleep(0.5)
    sys.exit(f"the demo fleet was not ready within {START_SECONDS} s")


if __name__ == "__main__":
    main()
