"""The faults' measurements measure: a short run over real processes prints what came of each."""

from __future__ import annotations

from tests.benches import run_bench

FAULTS = ["--fault", "kill -9 within a stream", "--fault", "client hangs up", "--hang-ups", "1"]


def test_a_short_run_tells_how_a_stream_ends_whose_worker_is_killed() -> None:
    printed = run_bench("fault_bench", *FAULTS)
    rows = {
        cells[1]: cells[2]
        for line in printed.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 3
    }
    assert rows["what"] == "paragone"
    assert rows["the stream ends with"] == "an error event, no [DONE]"
    assert rows["events broken by it"] == "0"
    assert rows["next request is served"] == "yes"
    assert float(rows["ms until the worker sees it"]) > 0
