"""Steps of rows with different LoRAs, ours and PEFT's, in CPU time of one thread."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine_bench.checkpoint import SIZES, make_checkpoint
from engine_bench.cost import ADAPTERS, RANK, ROWS, STEPS, first_token, question
from engine_bench.servers import BenchError
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.lora import AdapterSet, LoraPair
from worker.checkpoint.quantise import quiet_bitsandbytes
from worker.checkpoint.spec import LoadSpec
from worker.engine.slot_model import SlotModel

SCALING = 2.0
OURS, PEFT = "paragone", "PEFT"


class Side:
    """One model with its rows, their prompts read without adapters."""

    def __init__(self, folder: str) -> None:
        spec = LoadSpec(folder, model_name="bench", device="cpu", dtype="float32")
        self.model = SlotModel(load_checkpoint(spec, lambda _progress: None))
        self.network: nn.Module = self.model._model  # noqa: SLF001
        self.rows = [first_token(self.model, question(index)) for index in range(ROWS)]

    def step(self) -> list[int]:
        """The next token of each row."""
        return self.model.step(self.rows)


def measure(rounds: int, size: str = "full") -> str:
    """Figures as lines.

    Raises:
        BenchError: the two do not say the same.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="engine-mixed-") as folder:
        make_checkpoint(Path(folder), SIZES[size])
        ours, theirs = Side(folder), Side(folder)
    adapters = [drawn(ours.network) for _ in range(ADAPTERS)]
    kept = AdapterSet(ours.network, torch.float32)
    numbers = [kept.add(pairs) for pairs in adapters]
    wrapped = in_peft(theirs.network, adapters)

    def ours_with(chosen: Sequence[int]) -> list[int]:
        kept.use_rows([numbers[index] for index in chosen])
        return ours.step()

    def theirs_with(chosen: Sequence[int] | None) -> list[int]:
        with through(theirs.model, wrapped, chosen):
            return theirs.step()

    mixed = [index % ADAPTERS for index in range(ROWS)]
    ways: dict[tuple[str, str], Callable[[], list[int]]] = {
        (OURS, "mixed"): lambda: ours_with(mixed),
        (PEFT, "mixed"): lambda: theirs_with(mixed),
        (OURS, "one"): lambda: ours_with([0] * ROWS),
        (PEFT, "one"): lambda: theirs_with(None),
    }
    found: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for number in range(rounds * STEPS):
        said = {}
        for name in list(ways) if number % 2 else reversed(ways):
            before = time.thread_time()
            said[name] = ways[name]()
            found[name].append(time.thread_time() - before)
        for kind in ("mixed", "one"):
            if said[OURS, kind] != said[PEFT, kind]:
                raise BenchError(f"the rows do not say the same in step {number}, {kind}: {said}")
    lines = []
    for kind, what in (("mixed", f"{ADAPTERS} adapters mixed"), ("one", "one adapter")):
        mine, others = (found[way, kind] for way in (OURS, PEFT))
        quotient = statistics.median(a / b for a, b in zip(others, mine, strict=True))
        lines.append(
            f"step of {ROWS} rows, {what} of rank {RANK}: {OURS} "
            f"{statistics.median(mine) * 1e3:.1f} ms, {PEFT} "
            f"{statistics.median(others) * 1e3:.1f} ms, quotient {quotient:.2f}"
        )
    return "\n".join(lines)


def drawn(network: nn.Module) -> dict[str, LoraPair]:
    """An adapter for all linear layers of the language model."""
    return {
        name: LoraPair(
            torch.randn(RANK, layer.in_features) * 0.05,
            torch.randn(layer.out_features, RANK) * 0.05,
            SCALING,
        )
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and "language_model" in name
    }


def in_peft(network: nn.Module, adapters: Sequence[dict[str, LoraPair]]) -> Any:  # noqa: ANN401
    """The network within PEFT, with the same adapters, named by their numbers."""
    quiet_bitsandbytes()
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - it takes seconds to import

    def config() -> LoraConfig:
        return LoraConfig(r=RANK, lora_alpha=RANK * SCALING, target_modules=list(adapters[0]))

    wrapped = get_peft_model(network, config(), adapter_name="0")
    for index in range(1, len(adapters)):
        wrapped.add_adapter(str(index), config())
    layers = dict(wrapped.get_base_model().named_modules())
    with torch.no_grad():
        for index, pairs in enumerate(adapters):
            for name, pair in pairs.items():
                layers[name].lora_A[str(index)].weight.copy_(pair.down)
                layers[name].lora_B[str(index)].weight.copy_(pair.up)
    return wrapped.eval()


@contextmanager
def through(
    model: SlotModel,
    wrapped: Any,  # noqa: ANN401
    chosen: Sequence[int] | None,
) -> Iterator[None]:
    """The passes go through PEFT: each row through its adapter, or all through the first."""
    reader = model._reader  # noqa: SLF001 - the seam between the engine and the network
    forward = reader.forward
    names = {} if chosen is None else {"adapter_names": [str(index) for index in chosen]}

    def peft_forward(**inputs: object) -> torch.Tensor:
        output = wrapped(use_cache=True, logits_to_keep=1, **names, **inputs)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    reader.forward = peft_forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        reader.forward = forward  # type: ignore[method-assign]
