"""From settings to an engine: the one place that knows which engines there are.

Importing it needs torch and transformers, which takes seconds: import it where that may take time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from controller.protocol.fleet import LoadProgress
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.prompt import PreparedPrompt
from worker.checkpoint.spec import LoadSpec
from worker.engine.protocol import Engine
from worker.engine.sequential import SequentialEngine
from worker.engine.transformers_model import TransformersModel

_log = logging.getLogger(__name__)


def build_engine(
    spec: LoadSpec,
    *,
    threads: int | None,
    max_running: int,
    max_waiting: int,
    on_progress: Callable[[LoadProgress], None],
    on_device_lost: Callable[[str], None],
) -> Engine:
    """Loads the checkpoint and puts an engine before it. Blocks; for a thread of its own.

    Args:
        spec: the checkpoint.
        threads: CPU threads of the model; None leaves it to torch.
        max_running: requests that may run at once, where the engine can do several.
        max_waiting: requests that may wait.
        on_progress: called on this thread as loading goes on.
        on_device_lost: called on the event loop's thread when nothing can run any more.

    Raises:
        CheckpointError: it cannot be loaded, and why.
    """
    # It asks for a package that would fetch kernels over the network; it runs without them.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if threads is not None:
        torch.set_num_threads(threads)
    model = TransformersModel(load_checkpoint(spec, on_progress))
    on_progress(LoadProgress(phase="warming up", fraction=1.0))
    model.warm_up()
    if max_running > 1:
        _log.info(
            "this engine answers one request after another: of the %d that may run at once "
            "(--limit-model-concurrency) it runs 1, and up to %d wait (--max-queue)",
            max_running,
            max_waiting,
        )
    return SequentialEngine[PreparedPrompt](
        model, max_waiting=max_waiting, on_device_lost=on_device_lost
    )
