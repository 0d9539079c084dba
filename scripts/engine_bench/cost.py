"""What the engine adds to the model, in CPU time of one thread: other work matters little to it."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from engine_bench.checkpoint import make_checkpoint
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.lora import AdapterSet, LoraPair
from worker.checkpoint.spec import LoadSpec
from worker.engine.protocol import GenerationRequest, SamplingParams
from worker.engine.slot_model import SlotModel, SlotRow

ROWS, STEPS, ADAPTERS, RANK = 16, 20, 4, 16
GREEDY = SamplingParams(temperature=0.0)


def question(index: int) -> GenerationRequest:
    """About a picture of its own."""
    pixels = random.Random(index).randbytes(3 * 160 * 120)
    content = [ImagePart(image_url=ImageUrl(url="data:,")), TextPart(text="What is it?")]
    message = ChatMessage(role="user", content=content)
    picture = Image.frombytes("RGB", (160, 120), pixels)
    return GenerationRequest("bench", "bench", (message,), (picture,), sampling=GREEDY)


def measure(rounds: int) -> str:
    """Figures as lines."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="engine-cost-") as folder:
        make_checkpoint(Path(folder))
        spec = LoadSpec(folder, model_name="bench", device="cpu", dtype="float32")
        model = SlotModel(load_checkpoint(spec, lambda _progress: None))
    rows = [first_token(model, question(index)) for index in range(ROWS)]
    overhead = engine_overhead(model, rows)
    adapted = adapters(model, rows, rounds)
    for row in rows:
        model.close(row)
    model.release_caches()
    turns = [second_turn(model, ROWS + index) for index in range(2 * rounds)]
    spread = f"{statistics.median(turns):.2f} ({min(turns):.2f} - {max(turns):.2f})"
    return "\n".join(
        (
            f"engine's part of a step of {ROWS} rows: {overhead:.1%} of the model's",
            *(f"step with {name}: {seconds * 1e3:.1f} ms" for name, seconds in adapted.items()),
            f"time to the first token of an image's second turn, of the first turn's: {spread}",
        )
    )


def first_token(model: SlotModel, asked: GenerationRequest) -> SlotRow:
    row = model.open(model.prepare(asked), GREEDY)
    while model.prefill(row, 4_096) is None:
        pass
    return row


def engine_overhead(model: SlotModel, rows: list[SlotRow]) -> float:
    """What a step takes besides the forward pass, as a share of it."""
    reader, shares = model._reader, []  # noqa: SLF001 - the seam between the two
    forward, inside = reader.forward, [0.0]

    def timed(**inputs: object) -> torch.Tensor:
        before = time.thread_time()
        logits = forward(**inputs)
        inside[0] = time.thread_time() - before
        return logits

    reader.forward = timed  # type: ignore[method-assign]
    for _ in range(STEPS):
        whole = seconds(lambda: model.step(rows))
        shares.append(whole / inside[0] - 1)
    reader.forward = forward  # type: ignore[method-assign]
    return statistics.median(shares)


def adapters(model: SlotModel, rows: list[SlotRow], rounds: int) -> dict[str, float]:
    """Seconds of a step, by what the rows go through."""
    network: nn.Module = model._model  # noqa: SLF001
    kept = AdapterSet(network, torch.float32)
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and "language_model" in name
    }
    numbers = [
        kept.add(
            {
                name: LoraPair(
                    torch.randn(RANK, layer.in_features) * 0.01,
                    torch.randn(layer.out_features, RANK) * 0.01,
                    2.0,
                )
                for name, layer in layers.items()
            }
        )
        for _ in range(ADAPTERS)
    ]
    mixed = [numbers[index % ADAPTERS] for index in range(len(rows))]
    ways: dict[str, Callable[[], None]] = {
        "no adapter": lambda: kept.use(None),
        "one adapter": lambda: kept.use(numbers[0]),
        f"{ADAPTERS} adapters mixed": lambda: kept.use_rows(mixed),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, use in ways.items():
            use()
            found[name] += [seconds(lambda: model.step(rows)) for _ in range(STEPS)]
    for number in numbers:
        kept.remove(number)
    kept.use(None)
    return {name: statistics.median(values) for name, values in found.items()}


def second_turn(model: SlotModel, index: int) -> float:
    """Time to the first token of a second turn, as a share of the first turn's."""
    asked = question(index)
    before = time.thread_time()
    row = first_token(model, asked)
    first = time.thread_time() - before
    for _ in range(15):
        model.step([row])
    said = ChatMessage(role="assistant", content=model.serving("bench").decode(row.answer))
    model.close(row)
    more = ChatMessage(role="user", content="And what else?")
    before = time.thread_time()
    row = first_token(model, replace(asked, messages=(*asked.messages, said, more)))
    second = time.thread_time() - before
    model.close(row)
    return second / first


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread."""
    before = time.thread_time()
    work()
    return time.thread_time() - before
