"""The table of checkpoint formats: how each is recognised, and what loading it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worker.checkpoint import delta, llava, llava_mpt
from worker.checkpoint.errors import (
    BaseModelError,
    IncompleteError,
    PathError,
)
from worker.checkpoint.folder import CheckpointFolder, locate
from worker.checkpoint.plan import AdapterSource, Family, LoadPlan, WeightSource
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.tower import Tower, rename_tower_tensor
from worker.checkpoint.unrecognised import why_unrecognised

PROJECTOR_FILES = ("mm_projector.safetensors", "mm_projector.bin")
NON_LORA_FILES = ("non_lora_trainables.safetensors", "non_lora_trainables.bin")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of checkpoint.

    Attributes:
        name: what is shown, e.g. in ``/v1/models``.
        needs: what a folder of this kind has, in words, for the message when nothing matches.
        recognises: whether a folder is of this kind, by its files and its config.
        plan: what loading it means.
    """

    name: str
    needs: str
    recognises: Callable[[CheckpointFolder], bool]
    plan: Callable[[CheckpointFolder, LoadSpec], LoadPlan]


def plan_load(spec: LoadSpec) -> LoadPlan:
    """Recognises a checkpoint and decides how to load it; reads configs and no weights.

    Raises:
        CheckpointError: any of its kinds; the message names the cause.
    """
    return _plan_folder(locate(spec.model_path, revision=spec.revision), spec)


def _plan_folder(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    for row in FORMATS:
        if row.recognises(folder):
            return row.plan(folder, spec)
    known = _known_types()
    raise why_unrecognised(
        folder,
        known.vision_language | known.text,
        [f"{row.name}: {row.needs}" for row in FORMATS],
    )


# --- original LLaVA


def _original(folder: CheckpointFolder) -> bool:
    return llava.is_original(folder.config)


def _plan_llava(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    if spec.model_base is not None:
        base = _open_base(folder, spec, "the delta was made over")
        if delta.is_delta_over(folder, base, _own_names(folder.config)):
            return _plan_llava_delta(folder, spec)
        raise BaseModelError(
            f"{folder.path} is a whole checkpoint, with a language model of its own and no delta; "
            "it takes no --model-base"
        )
    tower = _tower(folder)
    own = WeightSource(folder.weight_files(), _own_names(folder.config))
    return _llava_plan("llava", folder, tower, sources=(own,), tokenizer_folder=folder)


def _is_llava_delta(folder: CheckpointFolder) -> bool:
    whole = _original(folder) and not llava.needs_base(folder)
    return whole and delta.says_delta(folder, _own_names(folder.config))


def _plan_llava_delta(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    if spec.model_base is None:
        raise BaseModelError(
            f"{folder.path} holds delta weights: what a model differs by from its base. Give the "
            "language model that it was made over as --model-base. (It is told by its numbers; "
            f'where it is a model all the same, put "{delta.MARKER}": false into its config.json)'
        )
    base = _open_base(folder, spec, "the delta was made over")
    tower = _tower(folder, base)
    _require_same_shape(folder, base, may_grow=True)
    own = WeightSource(folder.weight_files(), _own_names(folder.config), delta_base=base)
    plan = _llava_plan("llava-delta", folder, tower, sources=(own,), tokenizer_folder=folder)
    return replace(plan, base=base)


def _plan_llava_projector(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    base = _open_base(folder, spec, "the projector was trained over")
    file = folder.first(*PROJECTOR_FILES)
    if file is None:
        raise IncompleteError(f"{folder.path} lacks {' or '.join(PROJECTOR_FILES)}")
    return _llava_over_base("llava-projector", folder, base, file)


def _plan_llava_lora(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    base = _open_base(folder, spec, "the adapter was trained over")
    file = folder.first(*NON_LORA_FILES)
    if file is None:
        raise IncompleteError(
            f"{folder.path} is a LLaVA adapter without its projector: it lacks "
            f"{' or '.join(NON_LORA_FILES)}. It holds: {folder.listing()}"
        )
    _require_adapter_weights(folder)
    plan = _llava_over_base("llava-lora", folder, base, file)
    return replace(plan, adapter=AdapterSource(folder, llava.module_names))


def _llava_over_base(
    kind: str, folder: CheckpointFolder, base: CheckpointFolder, projector: Path
) -> LoadPlan:
    _require_same_shape(folder, base)
    tower = _tower(folder, base)
    rename = _own_names(folder.config)
    sources = (
        WeightSource(_weights(base), rename),
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
    if not _original(base) and found != wanted:
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


# --- adapters over anything else


def _is_adapter(folder: CheckpointFolder) -> bool:
    return folder.has("adapter_config.json")


def _plan_adapter(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    base = _open_base(folder, spec, "the adapter was trained over")
    if _is_adapter(base):
        raise BaseModelError(f"the base {base.path} is itself an adapter; give a whole model")
    if _original(base) and llava.needs_base(base):
        raise BaseModelError(
            f"the base {base.path} is itself a projector without a language model; give a whole "
            "model"
        )
    _require_adapter_weights(folder)
    # The base is whole by itself.
    plan = _plan_folder(base, replace(spec, model_base=None))
    return replace(
        plan, format=f"{plan.format}-lora", folder=folder, base=base,
        adapter=AdapterSource(folder, _MODULE_NAMES[plan.family]),
    )  # fmt: skip


def _native_module_names(name: str) -> tuple[str, ...]:
    """Names that transformers 5 gives to modules that earlier versions called otherwise."""
    return (
        name,
        f"model.{name}",
        f"model.{name.replace('language_model.model.', 'language_model.', 1)}",
        name.replace("model.", "model.language_model.", 1),
    )


_MODULE_NAMES: dict[Family, Callable[[str], tuple[str, ...]]] = {
    Family.LLAVA: llava.module_names,
    Family.NATIVE: _native_module_names,
    Family.TEXT: lambda name: (name,),
}


def _require_adapter_weights(folder: CheckpointFolder) -> None:
    if folder.first(*ADAPTER_FILES) is None:
        raise IncompleteError(
            f"{folder.path} has an adapter_config.json and no {' or '.join(ADAPTER_FILES)}. "
            f"It holds: {folder.listing()}"
        )


# --- transformers' own checkpoints


def _is_vision_language(folder: CheckpointFolder) -> bool:
    known = _known_types().vision_language
    return folder.config.get("model_type") in known and bool(folder.weight_files())


def _is_text(folder: CheckpointFolder) -> bool:
    known = _known_types().text
    return folder.config.get("model_type") in known and bool(folder.weight_files())


def _plan_native(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    _require_no_base(folder, spec)
    return _transformers_plan("vision-language", Family.NATIVE, folder)


def _plan_text(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    _require_no_base(folder, spec)
    plan = _transformers_plan("text", Family.TEXT, folder)
    template = "vicuna_v1" if folder.config.get("model_type") == "llama" else None
    return replace(plan, template=template)


def _require_no_base(folder: CheckpointFolder, spec: LoadSpec) -> None:
    if spec.model_base is not None:
        raise BaseModelError(
            f"{folder.path} is a whole checkpoint and no adapter over {spec.model_base}; it takes "
            "no --model-base"
        )


def _transformers_plan(kind: str, family: Family, folder: CheckpointFolder) -> LoadPlan:
    config = folder.config
    text_config = config.get("text_config") or config
    architectures = config.get("architectures") or [str(config["model_type"])]
    return LoadPlan(
        format=kind,
        family=family,
        folder=folder,
        architecture=str(architectures[0]),
        config=config,
        sources=(WeightSource(_weights(folder), _same),),
        tokenizer_folder=folder,
        context_length=llava.context_length(text_config),
    )


def _same(name: str) -> str:
    return name


@dataclass(frozen=True, slots=True)
class _KnownTypes:
    vision_language: frozenset[str]
    text: frozenset[str]


def _known_types() -> _KnownTypes:
    # Imported on use: transformers takes a second, and original checkpoints do not need its tables.
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    return _KnownTypes(
        frozenset(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
        frozenset(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    )


# --- what several formats need


def _weights(folder: CheckpointFolder) -> tuple[Path, ...]:
    files = folder.weight_files()
    if not files:
        raise IncompleteError(f"{folder.path} has no weights. It holds: {folder.listing()}")
    return files


def _open_base(folder: CheckpointFolder, spec: LoadSpec, why: str) -> CheckpointFolder:
    """The base that was asked for, else the one that the adapter's config names."""
    if spec.model_base is not None:
        try:
            return locate(spec.model_base)
        except PathError as error:
            raise BaseModelError(f"the base (--model-base) cannot be opened: {error}") from error
    adapter = folder.json("adapter_config.json") or {}
    named = adapter.get("base_model_name_or_path")
    if not named:
        raise BaseModelError(
            f"{folder.path} is not a whole model: give the language model that {why} "
            "as --model-base"
        )
    # Adapters usually lie beside their base, or name it as the hub does.
    for candidate in (folder.path / named, folder.path.resolve().parent / named):
        if candidate.is_dir():
            return CheckpointFolder.open(candidate)
    try:
        return locate(str(named))
    except PathError as error:
        raise BaseModelError(
            f"{folder.path} is not a whole model, and its adapter_config.json names the base "
            f"{named!r}, which was found neither beside it nor elsewhere ({error}). "
            "Give it as --model-base"
        ) from error


# The first row that recognises a folder decides.
FORMATS: tuple[Format, ...] = (
    Format(
        "llava-lora",
        "adapter_config.json, adapter_model.*, non_lora_trainables.* and a config.json with mm_*",
        lambda folder: _original(folder) and _is_adapter(folder),
        _plan_llava_lora,
    ),
    Format(
        "llava-projector",
        "mm_projector.* and a config.json with mm_*",
        lambda folder: (
            _original(folder)
            and llava.needs_base(folder)
            and folder.first(*PROJECTOR_FILES) is not None
        ),
        _plan_llava_projector,
    ),
    Format(
        "llava-delta",
        "weights next to zero and a config.json with mm_*",
        _is_llava_delta,
        _plan_llava_delta,
    ),
    Format(
        "llava",
        "whole weights and a config.json with mm_*",
        lambda folder: _original(folder) and not llava.needs_base(folder),
        _plan_llava,
    ),
    Format("lora", "adapter_config.json and adapter_model.*", _is_adapter, _plan_adapter),
    Format(
        "vision-language",
        "whole weights and a config.json of a vision-language model that transformers knows",
        _is_vision_language,
        _plan_native,
    ),
    Format(
        "text",
        "whole weights and a config.json of a language model that transformers knows",
        _is_text,
        _plan_text,
    ),
)
