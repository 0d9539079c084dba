"""Checks before any weight is read: names, shapes, the adapter's targets, and memory.

They are made against a skeleton, the model on torch's "meta" device, which has shapes and no data.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers.initialization import no_init_weights

from worker.checkpoint.errors import (
    BaseModelError,
    CheckpointError,
    FormatError,
    IncompleteError,
    TokenizerError,
    TowerError,
)
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.plan import LoadPlan, Part, PlannedTensor, part_of
from worker.checkpoint.progress_bars import without_progress_bars
from worker.checkpoint.spec import AttentionName

# What transformers' classes raise for a config that they cannot follow.
_UNMADE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def skeleton(
    model_class: Any,  # noqa: ANN401 - transformers is untyped
    config: Any,  # noqa: ANN401
    attn_implementation: AttentionName | None = None,
) -> Any:  # noqa: ANN401
    """The model without data. Its config is a copy, since building a model settles parts of it.

    Its numbers have torch's default dtype, whatever the config says: transformers would change that
    default meanwhile, for all threads, one of which may be running a model.

    Raises:
        FormatError: the config does not make a model.
        CheckpointError: the model, or this machine, has no such attention.
    """
    config = copy.deepcopy(config)
    _take_default_dtype(config)
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation  # noqa: SLF001 - as from_pretrained does
    try:
        # Choosing first values takes longer than the rest, though there is nowhere to put them.
        with torch.device("meta"), no_init_weights():
            model = model_class(config)
        model.tie_weights()
    except _UNMADE as error:
        reason = " ".join(str(error).split())
        if attn_implementation is None:
            raise FormatError(
                f"the checkpoint's config.json does not make a {model_class.__name__}: {reason}. "
                "Compare it with the one of the original download"
            ) from error
        raise CheckpointError(
            f"--attn-implementation {attn_implementation} is not to be had for "
            f"{model_class.__name__} here: {reason}. Without the flag, transformers chooses"
        ) from error
    return model


def _take_default_dtype(config: Any) -> None:  # noqa: ANN401
    """Makes a config, and those of the parts of its model, be of torch's default dtype."""
    config.dtype = torch.get_default_dtype()
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None:
            _take_default_dtype(part)


def require_tensors(
    bones: Any,  # noqa: ANN401 - transformers is untyped
    plan: LoadPlan,
    tensors: Mapping[str, PlannedTensor],
) -> None:
    """Checks that every parameter of a skeleton is on disk, in its shape.

    Raises:
        BaseModelError: the language model's, of a checkpoint over a base.
        TowerError: the vision tower's.
        IncompleteError: any other's.
    """
    tied = set(getattr(bones, "all_tied_weights_keys", {}))
    wanted = {name: tuple(tensor.shape) for name, tensor in bones.state_dict().items()}
    missing = sorted(set(wanted) - set(tensors) - tied)
    if missing:
        part = part_of(missing[0])
        names = [name for name in missing if part_of(name) is part]
        raise _blame(plan, part)(
            f"{_home(plan, part).path} lacks {len(names)} tensors of the {part}: {some(names)}"
        )
    other = [
        name
        for name, shape in sorted(wanted.items())
        if name in tensors and tensors[name].header.shape != shape
    ]
    if other:
        name = other[0]
        found = tensors[name]
        raise _blame(plan, found.part)(
            f"{found.header.file} does not fit the config of {plan.folder.path}: {len(other)} "
            f"tensors have another shape, such as {found.header.name}, which is "
            f"{_shape(found.header.shape)} instead of {_shape(wanted[name])}"
        )


def rehearse(
    model_class: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    plan: LoadPlan,
    tensors: Mapping[str, PlannedTensor],
) -> None:
    """Checks the same by letting transformers load shapes without data.

    For checkpoints whose tensors transformers renames, or makes out of several, while it loads.

    Raises:
        IncompleteError: tensors are missing.
        CheckpointError: tensors have other shapes than the config says.
    """
    shapes = {
        name: torch.empty(
            planned.header.shape, dtype=getattr(torch, planned.header.dtype), device="meta"
        )
        for name, planned in tensors.items()
    }
    with without_progress_bars():
        _, loaded = model_class.from_pretrained(
            None,
            config=copy.deepcopy(config),
            dtype=torch.get_default_dtype(),  # see `skeleton`
            state_dict=shapes,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,  # reported below, with all names
            output_loading_info=True,
        )
    require_complete(plan.tokenizer_folder, loaded)


def require_complete(folder: CheckpointFolder, loaded: Mapping[str, Any]) -> None:
    """Checks what transformers says of a model that it has filled.

    Raises:
        IncompleteError: tensors were missing.
        CheckpointError: tensors had other shapes than the config says.
    """
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise IncompleteError(
            f"{folder.path} lacks {len(missing)} tensors of its model: {some(missing)}. Download "
            "or copy its weights again, or compare its config.json with the original one"
        )
    mismatched = sorted(loaded["mismatched_keys"])
    if mismatched:
        name, found, wanted = mismatched[0]
        raise CheckpointError(
            f"{folder.path} has {len(mismatched)} tensors of another shape than its config.json "
            f"says, such as {name}: {_shape(tuple(found))} instead of {_shape(tuple(wanted))}. One "
            "of the two is of another model"
        )


def require_vocabulary(bones: Any, tokenizer: Any, folder: CheckpointFolder) -> None:  # noqa: ANN401
    """Checks that every token has an embedding.

    Raises:
        TokenizerError: the tokenizer is larger than the model.
    """
    rows = bones.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise TokenizerError(
            f"the tokenizer of {folder.path} has {len(tokenizer)} tokens and the model {rows} "
            "embeddings: it belongs to another model"
        )


def _blame(plan: LoadPlan, part: Part) -> Callable[[str], CheckpointError]:
    if part is Part.VISION_TOWER:
        return TowerError
    if part is Part.LANGUAGE_MODEL and plan.base is not None:
        return BaseModelError
    return IncompleteError


def _home(plan: LoadPlan, part: Part) -> CheckpointFolder:
    homes = {Part.LANGUAGE_MODEL: plan.base, Part.VISION_TOWER: plan.tower}
    return homes.get(part) or plan.folder


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def some(names: list[str], limit: int = 3) -> str:
    """The first few of a list of names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
