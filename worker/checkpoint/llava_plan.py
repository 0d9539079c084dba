"""What loading an original LLaVA checkpoint means: whole, or over a base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.checkpoint import delta, llava, llava_mpt
from worker.checkpoint.errors import BaseModelError, IncompleteError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.partial import (
    NON_LORA_FILES,
    PROJECTOR_FILES,
    open_base,
    require_adapter_weights,
    weights_of,
)
from worker.checkpoint.plan import AdapterSource, Family, LoadPlan, WeightSource
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.tower import Tower, rename_tower_tensor


def plan_whole(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """A checkpoint with a language model of its own; with a base, a delta that does not look so.

    Raises:
        CheckpointError: any of its kinds.
    """
    if spec.model_base is not None:
        base = open_base(folder, spec, "the delta was made over")
        if delta.is_delta_over(folder, base, _own_names(folder.config)):
            return plan_delta(folder, spec)
        raise BaseModelError(
            f"{folder.path} is a whole checkpoint, with a language model of its own and no delta; "
            "it takes no --model-base"
        )
    tower = _tower(folder)
    own = WeightSource(folder.weight_files(), _own_names(folder.config))
    return _llava_plan("llava", folder, tower, sources=(own,), tokenizer_folder=folder)


def is_delta(folder: CheckpointFolder) -> bool:
    """Whether its weights are what a model differs by from its base."""
    whole = llava.is_original(folder.config) and not llava.needs_base(folder)
    return whole and delta.says_delta(folder, _own_names(folder.config))


def plan_delta(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """Differences to the base, that it is added to; raises as `plan_whole`."""
    if spec.model_base is None:
        raise BaseModelError(
            f"{folder.path} holds delta weights: what a model differs by from its base. Give the "
            "language model that it was made over as --model-base. (It is told by its numbers; "
            f'where it is a model all the same, put "{delta.MARKER}": false into its config.json)'
        )
    base = open_base(folder, spec, "the delta was made over")
    tower = _tower(folder, base)
    _require_same_shape(folder, base, may_grow=True)
    own = WeightSource(folder.weight_files(), _own_names(folder.config), delta_base=base)
    plan = _llava_plan("llava-delta", folder, tower, sources=(own,), tokenizer_folder=folder)
    return replace(plan, base=base)


def plan_projector(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """A projector beside the base's language model; raises as `plan_whole`."""
    base = open_base(folder, spec, "the projector was trained over")
    file = folder.first(*PROJECTOR_FILES)
    if file is None:
        raise IncompleteError(f"{folder.path} lacks {' or '.join(PROJECTOR_FILES)}")
    return _llava_over_base("llava-projector", folder, base, file)


def plan_lora(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """An adapter and a projector over the base's language model; raises as `plan_whole`."""
    base = open_base(folder, spec, "the adapter was trained over")
    file = folder.first(*NON_LORA_FILES)
    if file is None:
        raise IncompleteError(
            f"{folder.path} is a LLaVA adapter without its projector: it lacks "
            f"{' or '.join(NON_LORA_FILES)}. It holds: {folder.listing()}"
        )
    require_adapter_weights(folder)
    plan = _llava_over_base("llava-lora", folder, base, file)
    return replace(plan, adapter=AdapterSource(folder, llava.module_names))


def _llava_over_base(
    kind: str, folder: CheckpointFolder, base: CheckpointFolder, projector: Path
) -> LoadPlan:
    _require_same_shape(folder, base)
    tower = _tower(folder, base)
    rename = _own_names(folder.config)
    sources = (
        WeightSource(weights_of(base), rename),
        WeightSource((projector,), rename),
    )
    tokenizer = folder if folder.first("tokenizer.model", "tokenizer.json") else base
    plan = _llava_plan(kind, folder, tower, sources=sources, tokenizer_folder=tokenizer)
    return replace(plan, base=base)


def _llava_plan(
    kind: str,
    folder: CheckpointFolder,
    tower: Tower,
    *,
    sources: tuple[WeightSource, ...],
    tokenizer_folder: CheckpointFolder,
) -> LoadPlan:
    config = folder.config
    if llava.language_model_type(config) == "mpt":
        # Its head is its embedding, which transformers' Llava wants to have twice.
        heads = [
            replace(source, rename=llava_mpt.head_from_embedding(source.rename))
            for source in sources
        ]
        sources = (*heads, *sources)
    tower_source = WeightSource(tower.folder.weight_files(), rename_tower_tensor)
    # As in the original code: a copy of the tower in the checkpoint counts only where the tower
    # was trained too. Otherwise it is a leftover, and the tower's own folder is what was used.
    if llava.trained_tower(config) or not tower_source.files:
        sources = (tower_source, *sources)
    else:
        sources = (*sources, tower_source)
    architectures = config.get("architectures") or [str(config.get("model_type"))]
    return LoadPlan(
        format=kind,
        family=Family.LLAVA,
        folder=folder,
        architecture=str(architectures[0]),
        config=llava.llava_config(config, tower),
        sources=sources,
        tokenizer_folder=tokenizer_folder,
        context_length=llava.context_length(config),
        tower=tower.folder,
        image=llava.image_setup(config, tower),
        template=llava.template_name(config),
    )


def _tower(folder: CheckpointFolder, base: CheckpointFolder | None = None) -> Tower:
    # The cheap question first: finding the tower may mean a download.
    llava.language_model_type(folder.config)
    homes = [folder.path] if base is None else [folder.path, base.path]
    return llava.find_own_tower(folder.config, homes)


def _own_names(config: Mapping[str, Any]) -> Callable[[str], str | None]:
    return llava.renamer(llava.projector_depth(config))


# Numbers that decide the shapes of a language model's tensors.
_SHAPES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "d_model",
    "n_heads",
    "n_layers",
)


def _require_same_shape(
    folder: CheckpointFolder, base: CheckpointFolder, *, may_grow: bool = False
) -> None:
    wanted, found = llava.language_model_type(folder.config), base.config.get("model_type")
    if not llava.is_original(base.config) and found != wanted:
        raise BaseModelError(
            f"{base.path} is not the base of {folder.path}: it is of model_type {found!r} instead "
            f"of {wanted!r}. Give the language model that the checkpoint was trained from as "
            "--model-base"
        )
    differing = [
        f"{key} {base.config[key]} instead of {folder.config[key]}"
        for key in _SHAPES
        if key in folder.config and key in base.config and base.config[key] != folder.config[key]
        if not (may_grow and key == "vocab_size" and base.config[key] < folder.config[key])
    ]
    if differing:
        raise BaseModelError(
            f"{base.path} is not the base of {folder.path}: it has {', '.join(differing)}. "
            "Give the language model that the checkpoint was trained from as --model-base"
        )
