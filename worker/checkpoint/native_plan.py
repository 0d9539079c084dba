"""What loading a checkpoint of transformers' own means."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from worker.checkpoint import kinds, llava
from worker.checkpoint.errors import BaseModelError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.kinds import require_kinds
from worker.checkpoint.partial import PROCESSOR_FILES, weights_of
from worker.checkpoint.plan import Family, LoadPlan, WeightSource
from worker.checkpoint.spec import LoadSpec

# Under which names a checkpoint's ``auto_map`` may have a model that can be asked, best first.
_MODELS = ("AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForCausalLM")


def is_vision_language(folder: CheckpointFolder) -> bool:
    """Whether transformers knows it as a model that sees."""
    known = known_types().vision_language
    return folder.config.get("model_type") in known and bool(folder.weight_files())


def is_text(folder: CheckpointFolder) -> bool:
    """Whether transformers knows it as a language model."""
    known = known_types().text
    return folder.config.get("model_type") in known and bool(folder.weight_files())


def plan_vision_language(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """A whole model that sees; a BaseModelError where a base was given."""
    _require_no_base(folder, spec)
    return _transformers_plan("vision-language", Family.NATIVE, folder)


def plan_text(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """A whole language model; raises as `plan_vision_language`."""
    _require_no_base(folder, spec)
    plan = _transformers_plan("text", Family.TEXT, folder)
    template = "vicuna_v1" if folder.config.get("model_type") == "llama" else None
    return replace(plan, template=template)


def brings_code(folder: CheckpointFolder) -> bool:
    """Whether it comes with code for a model that transformers does not have, and whole weights."""
    return model_code(folder) is not None and bool(folder.weight_files())


def model_code(folder: CheckpointFolder) -> str | None:
    """Where a folder's own code has its model, as transformers writes it ("file.Class")."""
    if folder.config.get("model_type") in _configs():
        return None  # transformers' own is what it runs on
    named = folder.config.get("auto_map") or {}
    found = next((named[key] for key in _MODELS if key in named), None)
    return str(found) if found is not None and "AutoConfig" in named else None


def plan_with_code(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    """A whole model on the code that it came with; raises as `plan_vision_language`."""
    _require_no_base(folder, spec)
    sees = folder.first(*PROCESSOR_FILES) is not None
    return _transformers_plan(
        "vision-language" if sees else "text", Family.NATIVE if sees else Family.TEXT, folder
    )


def _require_no_base(folder: CheckpointFolder, spec: LoadSpec) -> None:
    if spec.model_base is not None:
        raise BaseModelError(
            f"{folder.path} is a whole checkpoint and no adapter over {spec.model_base}; it takes "
            "no --model-base"
        )


def _transformers_plan(kind: str, family: Family, folder: CheckpointFolder) -> LoadPlan:
    config = folder.config
    text_config = config.get("text_config") or config
    require_kinds(text_config, kinds.CONTEXT, origin=folder.path / "config.json")
    architectures = config.get("architectures") or [str(config["model_type"])]
    return LoadPlan(
        format=kind,
        family=family,
        folder=folder,
        architecture=str(architectures[0]),
        config=config,
        sources=(WeightSource(weights_of(folder), _same),),
        tokenizer_folder=folder,
        context_length=llava.context_length(text_config),
    )


def _same(name: str) -> str:
    return name


def _configs() -> Container[str]:
    # Imported on use, as in `known_types`.
    from transformers import CONFIG_MAPPING  # noqa: PLC0415

    names: Container[str] = CONFIG_MAPPING
    return names


@dataclass(frozen=True, slots=True)
class KnownTypes:
    """Values of ``model_type`` that transformers knows, by what it loads them as."""

    vision_language: frozenset[str]
    text: frozenset[str]


def known_types() -> KnownTypes:
    """Those of the installed transformers."""
    # Imported on use: transformers takes a second, and original checkpoints do not need its tables.
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    return KnownTypes(
        frozenset(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
        frozenset(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    )


def module_names(name: str) -> tuple[str, ...]:
    """Names that transformers 5 gives to modules that earlier versions called otherwise."""
    return (
        name,
        f"model.{name}",
        f"model.{name.replace('language_model.model.', 'language_model.', 1)}",
        name.replace("model.", "model.language_model.", 1),
    )
