"""The documents against the code: settings, routes, error codes, links."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import httpx
import pytest

from controller.app import create_app
from controller.protocol import errors
from controller.protocol.fleet import ModelCard
from controller.settings import ControllerSettings
from worker.app import Worker

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


def anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    broken = []
    for match in _LINK.finditer(path.read_text(encoding="utf-8")):
        target, _, fragment = match["target"].partition("#")
        if target.startswith(("http:", "https:")):
            continue
        file = path.parent / target if target else path
        if not file.exists():
            broken.append(match["target"])
        elif fragment and file.suffix == ".md":
            titles = _HEADING.findall(file.read_text(encoding="utf-8"))
            if fragment not in {anchor(title) for title in titles}:
                broken.append(match["target"])
    assert broken == []


def test_the_page_of_settings_is_what_the_settings_are():
    writer = runpy.run_path(str(ROOT / "scripts" / "lib" / "write_configuration.py"))
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == writer["render"](page), "run scripts/lib/write_configuration.py"
    assert set(re.findall(r"<!-- table: ([\w.]+) -->", page)) == set(writer["TABLES"])


def test_every_setting_is_explained():
    writer = runpy.run_path(str(ROOT / "scripts" / "lib" / "write_configuration.py"))
    for name, (model, _prefix) in writer["TABLES"].items():
        for field_name, field in model.model_fields.items():
            assert field.description, f"{name}: {field_name} has no description"


def documented_calls(heading: str) -> set[tuple[str, str]]:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(GET|POST) ([^`]+)` \|", section, re.MULTILINE))


def calls(paths: dict[str, dict[str, object]]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


async def test_the_controllers_calls_are_all_documented():
    transport = httpx.ASGITransport(create_app(ControllerSettings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
        schema = (await client.get("/openapi.json")).json()
    assert documented_calls("The controller") == calls(schema["paths"])


def test_the_workers_calls_are_all_documented():
    def never(**_):
        raise AssertionError("nothing is loaded here")

    worker = Worker(
        ModelCard(name="x"), never, memberships=[], worker_id="x", on_failure=lambda: None
    )
    assert documented_calls("A worker") == calls(worker.app.openapi()["paths"])


def test_every_error_code_that_clients_can_see_is_documented():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE))
    for status, code in documented:
        assert (int(status), code) in known_errors(), f"{status} {code} does not exist"
    missing = {code for _, code in known_errors()} - {code for _, code in documented}
    # Bases of the tree, and what only operators of a fleet meet.
    assert missing == {"not_found", "permission_denied", "unavailable", "conflict"}


def known_errors() -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    todo = [errors.ParagoneError]
    while todo:
        kind = todo.pop()
        todo.extend(kind.__subclasses__())
        found.add((kind.status, kind.code))
    return found
