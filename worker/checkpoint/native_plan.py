"""What loading a checkpoint of transformers' own means."""

from __future__ import annotations

from dataclasses import dataclass, replace

from worker.checkpoint import llava
from worker.checkpoint.errors import BaseModelError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.partial import weights_of
from worker.checkpoint.plan import Family, LoadPlan, WeightSource
from worker.checkpoint.spec import LoadSpec


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
        sources=(WeightSource(weights_of(folder), _same),),
        tokenizer_folder=folder,
        context_length=llava.context_length(text_config),
    )


def _same(name: str) -> str:
    return name


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
