"""The table of checkpoint formats: how each is recognised, and what loading it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from worker.checkpoint import kinds, llava, llava_plan, native_plan
from worker.checkpoint.errors import BaseModelError, IncompleteError
from worker.checkpoint.folder import CheckpointFolder, locate
from worker.checkpoint.kinds import require_kinds
from worker.checkpoint.partial import (
    NON_LORA_FILES,
    PROJECTOR_FILES,
    is_adapter,
    open_base,
    require_adapter_weights,
)
from worker.checkpoint.plan import AdapterSource, Family, LoadPlan
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.unrecognised import why_unrecognised


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
    folder = locate(spec.model_path, revision=spec.revision, with_code=spec.trust_remote_code)
    return _plan_folder(folder, spec)


def _plan_folder(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    if llava.is_original(folder.config):
        require_kinds(folder.config, kinds.ORIGINAL, origin=folder.path / "config.json")
    for row in FORMATS:
        if row.recognises(folder):
            return row.plan(folder, spec)
    if spec.trust_remote_code and native_plan.brings_code(folder):
        return native_plan.plan_with_code(folder, spec)
    known = native_plan.known_types()
    raise why_unrecognised(
        folder,
        known.vision_language | known.text,
        [f"{row.name}: {row.needs}" for row in FORMATS],
    )


def _plan_adapter(folder: CheckpointFolder, spec: LoadSpec) -> LoadPlan:
    base = open_base(folder, spec, "the adapter was trained over")
    if is_adapter(base):
        raise BaseModelError(f"the base {base.path} is itself an adapter; give a whole model")
    if llava.is_original(base.config) and llava.needs_base(base):
        raise BaseModelError(
            f"the base {base.path} is itself a projector without a language model; give a whole "
            "model"
        )
    require_adapter_weights(folder)
    projector = folder.first(*NON_LORA_FILES)
    if projector is not None and not folder.config:
        raise IncompleteError(
            f"{folder.path} is a LLaVA adapter ({projector.name}) without its config.json, which "
            "says how it sees. Copy it from the original download"
        )
    # The base is whole by itself.
    plan = _plan_folder(base, replace(spec, model_base=None))
    return replace(
        plan, format=f"{plan.format}-lora", folder=folder, base=base,
        adapter=AdapterSource(folder, _MODULE_NAMES[plan.family]),
    )  # fmt: skip


_MODULE_NAMES: dict[Family, Callable[[str], tuple[str, ...]]] = {
    Family.LLAVA: llava.module_names,
    Family.NATIVE: native_plan.module_names,
    Family.TEXT: lambda name: (name,),
}


# The first row that recognises a folder decides.
FORMATS: tuple[Format, ...] = (
    Format(
        "llava-lora",
        "adapter_config.json, adapter_model.*, non_lora_trainables.* and a config.json with mm_*",
        lambda folder: llava.is_original(folder.config) and is_adapter(folder),
        llava_plan.plan_lora,
    ),
    Format(
        "llava-projector",
        "mm_projector.* and a config.json with mm_*",
        lambda folder: (
            llava.is_original(folder.config)
            and llava.needs_base(folder)
            and folder.first(*PROJECTOR_FILES) is not None
        ),
        llava_plan.plan_projector,
    ),
    Format(
        "llava-delta",
        "weights next to zero and a config.json with mm_*",
        llava_plan.is_delta,
        llava_plan.plan_delta,
    ),
    Format(
        "llava",
        "whole weights and a config.json with mm_*",
        lambda folder: llava.is_original(folder.config) and not llava.needs_base(folder),
        llava_plan.plan_whole,
    ),
    Format("lora", "adapter_config.json and adapter_model.*", is_adapter, _plan_adapter),
    Format(
        "vision-language",
        "whole weights and a config.json of a vision-language model that transformers knows",
        native_plan.is_vision_language,
        native_plan.plan_vision_language,
    ),
    Format(
        "text",
        "whole weights and a config.json of a language model that transformers knows",
        native_plan.is_text,
        native_plan.plan_text,
    ),
)
