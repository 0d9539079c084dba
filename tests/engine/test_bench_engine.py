"""The engines' measurement measures: a tiny run asks all three servers and prints each figure."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.benches import run_bench

ROOT = Path(__file__).parents[2]
SIZES = ["--size", "tiny", "--rounds", "1", "--concurrency", "1", "3", "--requests", "4"]


def rows(text: str) -> dict[str, list[str]]:
    table = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in table}


def test_a_tiny_run_compares_the_three_servers_and_finds_their_answers_the_same():
    printed = run_bench("engine_bench", *SIZES, OMP_NUM_THREADS="1")
    found = rows(printed)
    assert found["concurrent"][:3] == ["batched", "sequential", "transformers serve"]
    for clients in ("1", "3"):
        assert len(found[clients]) == 5
        assert all(float(cell.split()[0]) > 0 for cell in found[clients])
    for other in ("sequential", "transformers serve"):
        assert f"answers of {other} that are the same as batched: 8 of 8" in printed
    arriving = "until each new one has its first token, s"
    assert float(found[arriving][0].split()[0]) > 0


@pytest.mark.anyio
async def test_without_the_peer_the_report_says_why(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    servers = importlib.import_module("engine_bench.servers")
    python = "/nowhere/bin/python"
    found, about = await servers.peer_if_any(python, tmp_path)
    assert not found
    assert about.startswith(f"transformers serve is absent: {python} cannot be run")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_rows_with_different_loras_say_what_they_say_within_peft(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    mixed = importlib.import_module("engine_bench.mixed")
    # It raises where the two do not say the same.
    lines = mixed.measure(1, "tiny").splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "step of 16 rows, 4 adapters mixed of rank 16",
        "step of 16 rows, one adapter of rank 16",
    ]
    assert all(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)
