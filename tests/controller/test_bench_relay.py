"""The relay's measurements measure: a tiny run counts each request and prints each figure."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.benches import run_bench

ROOT = Path(__file__).parents[2]
SIZES = [
    "--rounds",
    "1",
    "--requests",
    "40",
    "--streams",
    "8",
    "--chunks",
    "20",
    "--first-tokens",
    "5",
]


def measured(*arguments: str) -> dict[str, str]:
    """The second column of the table that a run prints, by the first."""
    printed = run_bench("relay_bench", *arguments)
    table = [line.strip("|").split("|") for line in printed.splitlines() if line[:1] == "|"]
    rows = {cells[0].strip(): cells[1].strip() for cells in table}
    assert rows.pop("measure") == "paragone"
    assert rows.pop("---") == "---"
    return rows


def test_a_tiny_run_prints_each_measurement_for_the_relay() -> None:
    rows = measured(*SIZES)
    assert len(rows) == 6
    for row, figure in rows.items():
        assert float(figure.split()[0]) >= 0, row


def test_a_tiny_fleet_beats_and_is_listed_meanwhile() -> None:
    rows = measured("--fleet", "4", "--beat-seconds", "0.1", "--fleet-seconds", "1")
    assert 0 < float(rows["heartbeats that came, /s"]) < 120  # 40, but for a busy machine
    assert float(rows["list of models, p99, ms"]) > 0


def test_chunks_are_counted_where_a_relay_cuts_its_pieces_inside_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    client = importlib.import_module("relay_bench.load").Client()
    client.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    client.data_received(b"A\r\ndata: {}\n\n\r\n5\r\ndata:\r\n5\r\n {}\n\n\r\n0\r\n\r\n")
    assert client.count_chunks() == 2
