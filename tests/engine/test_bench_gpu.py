"""The measurement for GPUs measures: without one it says so first, and prints each figure."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from controller.protocol.fleet import Quantisation
from tests.benches import run_bench

ROOT = Path(__file__).parents[2]


def test_a_reduced_run_says_so_first_and_prints_each_figure():
    few = ("--rounds", "1", "--batches", "1", "2", "--weights", "full", "4bit")
    hidden = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    printed = run_bench("gpu_bench", *few, **hidden)
    assert printed.startswith("REDUCED CPU MODE: torch finds no CUDA device")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith("| ")
    ]
    assert rows[0][:4] == ["weights", "batch", "paragone, no graphs", "generate"]
    assert [row[:2] for row in rows[1:]] == [
        *(["float32", "1"], ["float32", "2"]),
        *(["4bit (float32)", "1"], ["4bit (float32)", "2"]),
    ]
    for row in rows[1:]:
        assert all(float(cell.split()[0]) > 0 for cell in row[2:5])
    assert "`./scripts/bench_gpu --rounds 1 --batches 1 2 --weights full 4bit`" in printed
    assert "MISSED" not in printed


@pytest.fixture
def gpu_bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


def test_the_bytes_of_a_step_are_those_of_the_language_model(gpu_bench):
    model = gpu_bench("gpu_bench.model")
    held = {}
    for quantisation in Quantisation:
        made = model.make_checkpoint(model.TINY, quantisation, torch.device("cpu"), torch.float32)
        held[quantisation] = model.bytes_of_a_step(made.model)
    words, (hidden, intermediate, layers, _) = model.TINY.words, model.TINY.text
    linear = layers * (4 * hidden * hidden + 3 * hidden * intermediate)
    others = words * hidden + (2 * layers + 1) * hidden  # the head, and norms
    assert held[Quantisation.NONE] == 4 * (linear + others)
    assert 4 * others + linear < held[Quantisation.INT8] < 4 * others + 1.2 * linear
    assert 4 * others + linear / 2 < held[Quantisation.NF4] < 4 * others + 0.7 * linear


def test_targets_are_judged_by_medians(gpu_bench):
    main = gpu_bench("gpu_bench.__main__")
    figures = main.Figures("bfloat16", {1: 10.0})
    figures.speeds = {
        (main.OURS, 1): [60.0, 75.0, 80.0],
        (main.THEIRS, 1): [20.0],
        (main.OURS, 32): [390.0],
    }
    first, second = main.targets(figures, 1_000.0)
    assert first == "batch 1, of the limit: 0.75, at least 0.7: met"
    assert second == "batch 32, of generate at batch 1: 19.50, at least 20: MISSED"
    # What did not fit is not judged.
    figures.speeds[main.OURS, 32] = None
    assert len(main.targets(figures, 1_000.0)) == 1
