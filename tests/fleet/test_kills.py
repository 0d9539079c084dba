"""The measurement of random kills: a short run of it, in which nothing may be lost."""

from __future__ import annotations

import pytest

from tests.benches import run_bench

KILLS = 5


@pytest.mark.fleet
@pytest.mark.timeout(600)
def test_after_some_random_kills_all_is_back_and_every_request_has_ended_with_a_reason():
    few = ("--fleet", "small", "--seed", "1", "--kills", str(KILLS), "--interval", "1.5")
    printed = run_bench("kill_bench", *few, timeout=560)
    rows = dict(
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith("| ")
    )
    assert rows["processes killed"].startswith(f"{KILLS} (")
    assert int(rows["answered"]) > 0
    for promise in (
        "processes that did not come back",
        "orphans",
        "lost without a word",
        "answered with another text",
    ):
        assert rows[promise] == "0"
