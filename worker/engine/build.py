"""From settings to an engine: the one place that knows which engines there are.

Importing it needs torch and transformers, which takes seconds: import it where that may take time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from controller.protocol.fleet import LoadProgress, Quantisation
from worker.checkpoint.kv import bytes_per_token
from worker.checkpoint.load import LoadedCheckpoint, load_checkpoint
from worker.checkpoint.memory import free_bytes
from worker.checkpoint.shared import SharedBase, load_shared
from worker.checkpoint.spec import LoadSpec, LoraSpec
from worker.engine.batchable import why_not_batched
from worker.engine.batched import BatchedEngine
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.graphs import CudaCapture
from worker.engine.host_allocator import keep_freed_memory
from worker.engine.packed_linear import pack_linear_layers
from worker.engine.protocol import CacheMemory, Engine
from worker.engine.sequential import SequentialEngine
from worker.engine.slot_model import SlotModel, SlotRow
from worker.engine.transformers_model import TransformersModel

_log = logging.getLogger(__name__)

EngineName = Literal["batched", "sequential"]

# How much of the memory that is free once the model is loaded its rows may come to hold. The rest
# is for activations, for what grows being there twice, and on a CPU for the other processes.
KV_SHARE = {"cuda": 0.7, "mps": 0.5, "cpu": 0.4}


def build_engine(
    spec: LoadSpec,
    *,
    engine: EngineName,
    threads: int | None,
    max_running: int,
    max_waiting: int,
    memory: CacheMemory,
    loras: Sequence[LoraSpec] = (),
    takes_adapters: bool = False,
    packs_weights: bool = True,
    records_steps: bool = True,
    on_progress: Callable[[LoadProgress], None],
    on_device_lost: Callable[[str], None],
) -> Engine:
    """Loads the checkpoint and puts an engine before it. Blocks; for a thread of its own.

    Args:
        spec: the checkpoint.
        engine: which engine; a model that cannot share a batch gets the sequential one.
        threads: CPU threads of the model; None leaves it to torch.
        max_running: requests that may run at once, where the engine can do several.
        max_waiting: requests that may wait.
        memory: what caches may take.
        loras: adapters over the checkpoint, each served under its own name.
        takes_adapters: whether others may come and go while it runs.
        packs_weights: whether linear layers on a CPU are put into oneDNN's layout.
        records_steps: whether decode steps on CUDA devices are recorded and replayed.
        on_progress: called on this thread as loading goes on.
        on_device_lost: called on the event loop's thread when nothing can run any more.

    Raises:
        CheckpointError: it cannot be loaded, and why.
    """
    # It asks for a package that would fetch kernels over the network; it runs without them.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    shared = load_shared(spec, loras, on_progress) if loras or takes_adapters else None
    checkpoints = [load_checkpoint(spec, on_progress)] if shared is None else shared.checkpoints
    checkpoint = checkpoints[0]
    if packs_weights and len(checkpoint.devices) == 1:  # else a layer's weight comes and goes
        on_progress(LoadProgress(phase="packing weights", fraction=1.0))
        packed = pack_linear_layers(checkpoint.model)
        if packed:
            _log.info("%.1f MiB of weights are packed for this CPU", packed / 2**20)
    on_progress(LoadProgress(phase="warming up", fraction=1.0))
    reason = why_not_batched(checkpoint)
    if engine == "batched" and reason is None:
        return _batched(
            [_told(each, "batched", None) for each in checkpoints],
            shared if takes_adapters else None,
            max_running=max_running,
            max_waiting=max_waiting,
            memory=memory,
            records_steps=records_steps,
            on_device_lost=on_device_lost,
        )
    if engine == "batched":
        _log.warning("%s runs one answer at a time: %s", checkpoint.card.name, reason)
    return _sequential(
        [_told(each, "sequential", reason) for each in checkpoints],
        shared if takes_adapters else None,
        max_running=max_running,
        max_waiting=max_waiting,
        on_device_lost=on_device_lost,
    )


def _batched(
    checkpoints: Sequence[LoadedCheckpoint],
    shared: SharedBase | None,
    *,
    max_running: int,
    max_waiting: int,
    memory: CacheMemory,
    records_steps: bool,
    on_device_lost: Callable[[str], None],
) -> Engine:
    checkpoint = checkpoints[0]
    capture = None
    if checkpoint.device.type == "cuda":
        reason = why_not_recorded(checkpoint.card.quantisation, is_wanted=records_steps)
        if reason is None:
            capture = CudaCapture(checkpoint.device)
        else:
            checkpoints = [_without_graphs(each, reason) for each in checkpoints]
    token_bytes = bytes_per_token(checkpoint.model.config, checkpoint.dtype)
    kv_bytes = memory.kv_bytes
    if kv_bytes is None:
        free = memory.share * free_bytes(checkpoint.device)
        kv_bytes = int(free * KV_SHARE[checkpoint.device.type])
    kv_tokens = max(1, kv_bytes // token_bytes)
    prefix_tokens = None
    if memory.prefix_bytes is not None:
        prefix_tokens = min(memory.prefix_bytes // token_bytes, kv_tokens)
    model = SlotModel(
        *checkpoints,
        kv_tokens=kv_tokens,
        prefix_tokens=prefix_tokens,
        image_cache_bytes=memory.image_bytes,
        shared=shared,
        capture=capture,
    )
    model.warm_up()
    _log.info(
        "up to %d answers are made together (--limit-model-concurrency); keys and values may take "
        "%.1f MiB (--kv-cache-memory), which is %d tokens of %d bytes each, kept prompts up to %d "
        "of them (--prefix-cache-bytes), features of images %.1f MiB (--image-cache-bytes)",
        max_running,
        kv_bytes / 2**20,
        kv_tokens,
        token_bytes,
        kv_tokens // 2 if prefix_tokens is None else prefix_tokens,
        memory.image_bytes / 2**20,
    )
    return BatchedEngine[EnginePrompt, SlotRow](
        model,
        capacity=max_running,
        max_waiting=max_waiting,
        kv_tokens=kv_tokens,
        on_device_lost=on_device_lost,
    )


def why_not_recorded(quantisation: Quantisation, *, is_wanted: bool) -> str | None:
    """Why decode steps on a CUDA device are no graphs; None where they are."""
    if not is_wanted:
        return "the worker was started with --no-cuda-graphs"
    if quantisation is Quantisation.INT8:
        return "8-bit layers look for outliers in what they get, which a graph cannot"
    return None


def _without_graphs(checkpoint: LoadedCheckpoint, reason: str) -> LoadedCheckpoint:
    _log.info("%s: decode steps are no CUDA graphs: %s", checkpoint.card.name, reason)
    card = checkpoint.card.model_copy(update={"cuda_graphs": f"off: {reason}"})
    return replace(checkpoint, card=card)


def _sequential(
    checkpoints: Sequence[LoadedCheckpoint],
    shared: SharedBase | None,
    *,
    max_running: int,
    max_waiting: int,
    on_device_lost: Callable[[str], None],
) -> Engine:
    model = TransformersModel(*checkpoints, shared=shared)
    model.warm_up()
    if max_running > 1:
        _log.info(
            "this engine answers one request after another: of the %d that may run at once "
            "(--limit-model-concurrency) it runs 1, and up to %d wait (--max-queue)",
            max_running,
            max_waiting,
        )
    return SequentialEngine[EnginePrompt](
        model, max_waiting=max_waiting, on_device_lost=on_device_lost
    )


def _told(checkpoint: LoadedCheckpoint, engine: EngineName, reason: str | None) -> LoadedCheckpoint:
    """The checkpoint, with its engine on its card."""
    card = checkpoint.card.model_copy(update={"engine": engine, "engine_reason": reason})
    return replace(checkpoint, card=card)
