"""The commands of docs/clients.md, run against the demo fleet; and what is kept of the others."""

from __future__ import annotations

import re

import pytest

from tests.documents import ROOT, Block, blocks_in, run

TRIED = (ROOT / "docs" / "clients-tried.txt").read_text(encoding="utf-8")
ENTRIES = ROOT / "scripts" / "clients" / "entries"
BLOCKS = [b for b in blocks_in("docs/clients.md") if b.is_command and b.why_not is None]


@pytest.mark.fleet
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", BLOCKS, ids=[block.code[:40] for block in BLOCKS])
def test_a_command_of_the_page_answers(demo_fleet, block):
    code = block.code.replace("http://127.0.0.1:21001", demo_fleet.controller_url)
    url = {"PARAGONE_CONTROLLER_URL": demo_fleet.controller_url}
    result = run(Block(block.language, code), url)
    assert result.returncode == 0, result.stderr
    if "escribe the image" in code:
        assert "circle" in result.stdout


def test_every_client_that_was_tried_has_its_output_kept():
    assert set(re.findall(r"^== (.+) ==$", TRIED, re.MULTILINE)) == {
        folder.name for folder in ENTRIES.iterdir()
    }
