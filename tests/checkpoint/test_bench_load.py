"""The measurement of loading measures: a tiny run loads in each way and prints each figure."""

from __future__ import annotations

from tests.benches import run_bench


def test_a_tiny_run_prints_each_loaders_time_and_memory(tmp_path):
    sizes = ("--size", "tiny", "--rounds", "1", "--folder", str(tmp_path))
    # It has compared the answers: both loaders load the same model.
    printed = run_bench("load_bench", *sizes, OMP_NUM_THREADS="1")
    rows = {
        cells[0]: cells[1:]
        for line in printed.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
    }
    loaders = {"paragone", "from_pretrained", "paragone 8-bit", "paragone 4-bit"}
    assert loaders < set(rows)
    for loader in loaders:
        assert float(rows[loader][0].split()[0]) > 0
        assert float(rows[loader][5]) > 100  # MiB: an interpreter with torch
    assert len(list((tmp_path / "original").glob("pytorch_model-*.bin"))) > 1
    for target in ("peak of the weights", "load time of from_pretrained's"):
        assert f"\n{target}: " in printed
