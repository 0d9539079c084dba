"""What a checkpoint is, from its configs and headers alone; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.protocol.fleet import ModelCard
from worker.checkpoint.formats import plan_load
from worker.checkpoint.plan import LoadPlan, Part, PlannedTensor
from worker.checkpoint.spec import LoadSpec


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """A checkpoint before it is loaded: its card, and where its parts come from."""

    card: ModelCard
    language_model: str  # transformers' model type
    vision_tower: str | None  # transformers' model type; None for text alone
    parameters_by_part: dict[Part, int]


def describe(spec: LoadSpec) -> CheckpointFacts:
    """The facts of a checkpoint; takes milliseconds for safetensors.

    Raises:
        CheckpointError: it cannot be loaded; the message says why.
    """
    plan = plan_load(spec)
    return facts_of(spec, plan, plan.tensors())


def facts_of(
    spec: LoadSpec, plan: LoadPlan, tensors: Mapping[str, PlannedTensor]
) -> CheckpointFacts:  # fmt: skip
    """The facts of a plan whose headers have been read."""
    parts: dict[Part, int] = {}
    for tensor in tensors.values():
        parts[tensor.part] = parts.get(tensor.part, 0) + tensor.header.num_elements
    text_config = plan.config.get("text_config") or plan.config
    vision_config = plan.config.get("vision_config")
    image = plan.image
    card = ModelCard(
        name=spec.served_name,
        base=plan.base.path.name if plan.base else None,
        adapter=plan.adapter.name if plan.adapter else None,
        quantisation=spec.quantisation,
        architecture=plan.architecture,
        format=plan.format,
        context_length=plan.context_length,
        image_tokens=image.num_tokens(image.tile_size, image.tile_size) if image else None,
        parameters=sum(parts.values()),
        weight_bytes=sum(tensor.header.num_bytes for tensor in tensors.values()),
        revision=plan.folder.revision,
    )
    return CheckpointFacts(
        card=card,
        language_model=str(text_config.get("model_type", "unknown")),
        vision_tower=None if vision_config is None else str(vision_config.get("model_type")),
        parameters_by_part=parts,
    )
