"""An adapter and its base on disk, as one whole checkpoint of the format that the base has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from worker.checkpoint import llava
from worker.checkpoint.errors import AdapterError, TowerError
from worker.checkpoint.folder import CheckpointFolder, looks_like_hub_id
from worker.checkpoint.formats import plan_load
from worker.checkpoint.merge import AdapterMerger
from worker.checkpoint.output import TEMPLATE_FILES, TOKENIZER_FILES, Output, copy_files, write_json
from worker.checkpoint.plan import AdapterSource, Family, LoadPlan, PlannedTensor
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.tensors import TensorStore
from worker.checkpoint.tower import Tower, find_tower
from worker.checkpoint.writer import OutputTensor, write_weights


def merge_lora(model_path: str, model_base: str | None, output: Output) -> None:
    """Writes an adapter and its base as one checkpoint: for LLaVA one of the original format.

    Args:
        model_path: the adapter.
        model_base: what it was trained over; None: what it names itself.
        output: where.

    Raises:
        CheckpointError: it is no adapter over LLaVA or a language model, does not fit its base, or
            it cannot be written.
    """
    plan = plan_load(LoadSpec(model_path, model_base=model_base))
    adapter, base = plan.adapter, plan.base
    if adapter is None or base is None:
        raise AdapterError(f"{plan.folder.path} is no adapter, so there is nothing to merge")
    if plan.family is Family.NATIVE:
        raise AdapterError(
            f"{plan.folder.path} is an adapter over a {plan.architecture}, which is not merged on "
            "disk; `paragone worker --merge-lora` merges it while it loads"
        )
    inputs = [plan.folder.path, base.path, plan.tokenizer_folder.path]
    output.require_usable(inputs)
    kept = _kept(plan, base)
    store = TensorStore(lambda _part, _count: None)
    tensors = _outputs(plan, adapter, kept, store)
    total = sum(tensor.num_bytes for tensor in tensors)
    try:
        with output.folder(inputs, num_bytes=total) as made:
            write_json(made / "config.json", _config(plan, base, output))
            copy_files(plan.tokenizer_folder, TOKENIZER_FILES, made)
            for folder in (base, plan.folder):  # the adapter's own wins
                copy_files(folder, ("generation_config.json",), made)
            copy_files(plan.folder, TEMPLATE_FILES, made)
            write_weights(
                made,
                tensors,
                max_shard_bytes=output.max_shard_bytes,
                on_written=output.meter("merging", total),
            )
    finally:
        store.close()


def _kept(plan: LoadPlan, base: CheckpointFolder) -> dict[str, PlannedTensor]:
    """The model's tensors but for those of a tower that has a folder of its own."""
    homes = {plan.folder.path, base.path}
    return {
        name: planned
        for name, planned in plan.tensors().items()
        if planned.header.file.parent in homes
    }


def _outputs(
    plan: LoadPlan,
    adapter: AdapterSource,
    kept: Mapping[str, PlannedTensor],
    store: TensorStore,
) -> list[OutputTensor]:
    merger = AdapterMerger(adapter, kept)
    written = llava.original_name if plan.family is Family.LLAVA else str

    def make(name: str) -> torch.Tensor:
        tensor = store.read(kept[name])
        return merger.merge(name, tensor) if merger.covers(name) else tensor

    return [
        OutputTensor(
            written(planned.header.name),
            planned.header.shape,
            planned.header.dtype,
            partial(make, name),
        )
        for name, planned in kept.items()
    ]


def _config(plan: LoadPlan, base: CheckpointFolder, output: Output) -> dict[str, Any]:
    if plan.family is Family.TEXT:
        return dict(base.config)
    config = dict(plan.folder.config)
    config.setdefault("architectures", [llava.architecture(config)])
    tower = llava.find_own_tower(config, [plan.folder.path, base.path])
    return config | {"mm_vision_tower": _tower_name(config, tower, output)}


def _tower_name(config: Mapping[str, Any], tower: Tower, output: Output) -> str:
    """How the config names the tower, if it is found from the output too; else its place."""
    name = str(config.get("mm_vision_tower") or config.get("vision_tower"))
    if looks_like_hub_id(name):
        return name
    try:
        find_tower(name, [output.path.absolute()])
    except TowerError:
        return str(tower.folder.path.resolve())
    return name
