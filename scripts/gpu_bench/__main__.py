"""Decodes with a random LLaVA-1.5-7B in turns with generate, and prints a Markdown table."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch
import transformers

from controller.protocol.errors import OutOfMemoryError
from controller.protocol.fleet import Quantisation
from gpu_bench.decode import Load, copy_bandwidth, ours, theirs
from gpu_bench.model import SEVEN, TINY, Shape, bytes_of_a_step, make_checkpoint
from worker.checkpoint.kv import bytes_per_token
from worker.engine.build import why_not_recorded
from worker.engine.graphs import CudaCapture
from worker.engine.slot_model import SlotModel

WEIGHTS = {"full": Quantisation.NONE, "8bit": Quantisation.INT8, "4bit": Quantisation.NF4}
OURS, PLAIN, THEIRS = "paragone", "paragone, no graphs", "generate"
LEAST_SHARE = 0.7  # of the limit, at batch 1 in full precision
LEAST_GAIN = 20.0  # batch 32 over generate at batch 1
REDUCED = (
    "REDUCED CPU MODE: torch finds no CUDA device, so that this is a tiny model, small batches and "
    "no CUDA graphs. These figures show that the script runs, and say nothing of a GPU."
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured, on what."""

    device: torch.device
    shape: Shape
    dtype: torch.dtype
    batches: tuple[int, ...]
    load: Load
    copied: int  # bytes, to measure the bandwidth with


@dataclass
class Figures:
    """Tokens a second by way and batch, of one kind of weights; None: it did not fit."""

    about: str  # the weights
    bytes_per_step: dict[int, float] = field(default_factory=dict)  # by batch
    speeds: dict[tuple[str, int], list[float] | None] = field(default_factory=dict)
    graphs: str | None = None

    def median(self, way: str, batch: int) -> float | None:
        """The middle of what was measured, if anything was."""
        values = self.speeds.get((way, batch))
        return statistics.median(values) if values else None


def gpu(batches: tuple[int, ...]) -> Setup:
    """The issue's model. The prompts are as long as those with one image."""
    load = Load(prompt=632, warm=24, steps=64)
    return Setup(torch.device("cuda", 0), SEVEN, torch.bfloat16, batches, load, 2**30)


def reduced(batches: tuple[int, ...]) -> Setup:
    """What a CPU does in seconds."""
    load = Load(prompt=60, warm=6, steps=8)
    return Setup(torch.device("cpu"), TINY, torch.float32, batches, load, 2**25)


def measure(setup: Setup, held: Quantisation, rounds: int) -> Figures:
    """One kind of weights, all batches, the ways in turns."""
    checkpoint = make_checkpoint(setup.shape, held, setup.device, setup.dtype)
    named = str(setup.dtype).removeprefix("torch.")
    figures = Figures(named if held is Quantisation.NONE else f"{held.value} ({named})")
    weights = bytes_of_a_step(checkpoint.model)
    row = bytes_per_token(checkpoint.model.config, setup.dtype) * setup.load.mean_length
    figures.bytes_per_step = {batch: weights + batch * row for batch in setup.batches}
    plain = SlotModel(checkpoint, prefix_tokens=0)
    words = setup.shape.words
    ways: dict[str, Callable[[int], float]] = {
        PLAIN: lambda batch: ours(plain, batch, setup.load, words),
        THEIRS: lambda batch: theirs(checkpoint.model, batch, setup.load, words, setup.device),
    }
    recorded: SlotModel | None = None
    if setup.device.type == "cuda":
        reason = why_not_recorded(held, is_wanted=True)
        figures.graphs = reason
        if reason is None:
            recorded = SlotModel(checkpoint, prefix_tokens=0, capture=CudaCapture(setup.device))
            with_graphs = recorded
            ways[OURS] = lambda batch: ours(with_graphs, batch, setup.load, words)
    for number in range(rounds):
        names = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for batch in setup.batches:
            for name in names:
                _measure_one(figures, name, batch, ways[name])
    if recorded is not None:
        figures.graphs = recorded.cards[0].cuda_graphs
    return figures


def _measure_one(figures: Figures, name: str, batch: int, way: Callable[[int], float]) -> None:
    values = figures.speeds.setdefault((name, batch), [])
    if values is None:
        return  # it did not fit before
    try:
        values.append(way(batch))
    except (torch.OutOfMemoryError, OutOfMemoryError):
        figures.speeds[name, batch] = None
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def table(all_figures: list[Figures], setup: Setup, bandwidth: float) -> list[str]:
    """A row for each kind of weights and batch."""
    ways = [OURS, PLAIN, THEIRS] if setup.device.type == "cuda" else [PLAIN, THEIRS]
    head = ["weights", "batch", *ways, "limit", "of the limit", "over generate at batch 1"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for figures in all_figures:
        first = figures.median(THEIRS, min(setup.batches))
        for batch in setup.batches:
            best = figures.median(OURS, batch) or figures.median(PLAIN, batch)
            limit = batch * bandwidth / figures.bytes_per_step[batch]
            cells = [figures.about, str(batch)]
            cells += [_cell(figures.speeds.get((way, batch), [])) for way in ways]
            cells.append(f"{limit:.0f}")
            cells.append("-" if best is None else f"{best / limit:.2f}")
            cells.append("-" if best is None or first is None else f"{best / first:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    for figures in all_figures:
        if figures.graphs is not None:
            lines += ["", f"CUDA graphs, {figures.about}: {figures.graphs}"]
    return lines


def _cell(values: list[float] | None) -> str:
    if values is None:
        return "out of memory"
    if not values:
        return "-"
    return f"{statistics.median(values):.1f} ({min(values):.1f} - {max(values):.1f})"


def targets(full: Figures, bandwidth: float) -> list[str]:
    """What was to be reached in full precision, and whether it was; for a GPU alone."""
    verdicts = []
    first, generated = full.median(OURS, 1), full.median(THEIRS, 1)
    if first is not None:
        share = first * full.bytes_per_step[1] / bandwidth
        verdicts.append(("batch 1, of the limit", share, LEAST_SHARE))
    many = full.median(OURS, 32)
    if many is not None and generated is not None:
        verdicts.append(("batch 32, of generate at batch 1", many / generated, LEAST_GAIN))
    return [
        f"{name}: {value:.2f}, at least {least:g}: {'met' if value >= least else 'MISSED'}"
        for name, value, least in verdicts
    ]


def main() -> None:
    """Parses the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="bench_gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", choices=list(WEIGHTS), nargs="+", default=list(WEIGHTS))
    parser.add_argument(
        "--batches", type=int, nargs="+", help="rows (default: 1 8 32 64; 1 8 without CUDA)"
    )
    arguments = parser.parse_args()
    has_cuda = torch.cuda.is_available()
    wanted = arguments.batches or ([1, 8, 32, 64] if has_cuda else [1, 8])
    setup = (gpu if has_cuda else reduced)(tuple(wanted))
    if not has_cuda:
        print(REDUCED + "\n")
    bandwidth = copy_bandwidth(setup.device, setup.copied)
    found = {}
    for name in arguments.weights:
        found[name] = measure(setup, WEIGHTS[name], arguments.rounds)
        gc.collect()
        if has_cuda:
            torch.cuda.empty_cache()
    machine = torch.cuda.get_device_name(0) if has_cuda else f"{os.cpu_count()} CPU cores"
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, {platform.machine()}, load average "
        f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}; copies move {bandwidth / 1e9:.0f} GB/s; "
        f"random weights in the shape of {setup.shape.name}, prompts of {setup.load.prompt} "
        f"tokens, steps {setup.load.warm} to {setup.load.warm + setup.load.steps} timed, "
        f"{arguments.rounds} rounds in turns; tokens/s of all rows, median (lowest - highest); the "
        f"limit is the bandwidth over the bytes of weights, keys and values that a step reads\n"
        f"`./scripts/bench_gpu {' '.join(sys.argv[1:])}`\n"
    )
    print("\n".join(table(list(found.values()), setup, bandwidth)))
    if has_cuda and "full" in found:
        print("\n" + "\n\n".join(targets(found["full"], bandwidth)))
    elif not has_cuda:
        print(
            f"\nThe targets are for CUDA devices and not judged here: batch 1 at least "
            f"{LEAST_SHARE:.0%} of the limit in bfloat16, batch 32 at least {LEAST_GAIN:g} times "
            f"generate at batch 1."
        )


if __name__ == "__main__":
    main()
