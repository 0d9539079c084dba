"""One load in a process of its own; prints what it took as a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.chassis.collecting import kept_from_collector
from controller.protocol.fleet import Quantisation
from worker.checkpoint.spec import LoadSpec

with kept_from_collector():  # as in a worker
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from worker.checkpoint.load import load_checkpoint
    from worker.checkpoint.quantise import quiet_bitsandbytes

# Reaches every weight of the language model, so that what was only mapped is there.
TOKENS = torch.arange(5, 21)[None]


def paragone(quantisation: Quantisation) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:  # noqa: ANN401 - transformers is untyped
        spec = LoadSpec(
            str(folder / "original"), device="cpu", dtype="bfloat16", quantisation=quantisation
        )
        return load_checkpoint(spec, lambda _progress: None).model

    return load


def transformers(folder: Path) -> Any:  # noqa: ANN401
    """Model and processor, since a checkpoint is loaded once it can be asked."""
    AutoProcessor.from_pretrained(folder / "converted")
    return LlavaForConditionalGeneration.from_pretrained(
        folder / "converted", dtype=torch.bfloat16, device_map={"": "cpu"}
    )


LOADERS: dict[str, Callable[[Path], Any]] = {
    "paragone": paragone(Quantisation.NONE),
    "from_pretrained": transformers,
    "paragone 8-bit": paragone(Quantisation.INT8),
    "paragone 4-bit": paragone(Quantisation.NF4),
}


def memory(counter: str) -> int:
    """A counter of this process (VmRSS, VmHWM), bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{counter}:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    loader, folder = sys.argv[1], Path(sys.argv[2])
    if "bit" in loader:
        quiet_bitsandbytes()
        import bitsandbytes  # noqa: F401, PLC0415 - its import is no part of loading
    before, started, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    model = LOADERS[loader](folder)
    loaded, cpu = time.perf_counter(), time.process_time() - cpu
    peak = memory("VmHWM")
    with torch.inference_mode():
        logits = model(input_ids=TOKENS).logits[0, -1]
    answered = time.perf_counter()
    print(
        json.dumps(
            {
                "load_seconds": loaded - started,
                "cpu_seconds": cpu,
                "ready_seconds": answered - started,
                "before": before,
                "peak": peak,
                "peak_ready": memory("VmHWM"),
                "answer": float(logits.float().sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
