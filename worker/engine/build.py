"""From settings to an engine: the one place that knows which engines there are.

Importing it needs torch and transformers, which takes seconds: import it where that may take time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from controller.protocol.fleet import LoadProgress
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.prompt import PreparedPrompt
from worker.checkpoint.spec import LoadSpec
from worker.engine.protocol import Engine
from worker.engine.sequential import SequentialEngine
from worker.engine.transformers_model import TransformersModel


def build_engine(
    spec: LoadSpec,
    *,
    threads: int | None,
    max_waiting: int,
    on_progress: Callable[[LoadProgress], None],
    on_device_lost: Callable[[str], None],
) -> Engine:
    """Loads the checkpoint and puts an engine before it. Blocks; for a thread of its own.

    Args:
        spec: the checkpoint.
        threads: CPU threads of the model; None leaves it to torch.
        max_waiting: requests that may wait.
        on_progress: called on this thread as loading goes on.
        on_device_lost: called on the event loop's thread when nothing can run any more.

    Raises:
        CheckpointError: it cannot be loaded, and why.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(spec, on_progress)
    return SequentialEngine[PreparedPrompt](
        TransformersModel(checkpoint), max_waiting=max_waiting, on_device_lost=on_device_lost
    )
