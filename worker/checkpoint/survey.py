"""A checkpoint as far as it is known before any weight is read; what can fail, fails here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.protocol.fleet import Quantisation
from worker.checkpoint.adapter import adapter_weights, check_adapter
from worker.checkpoint.errors import AdapterError, QuantisationError
from worker.checkpoint.families import ModelFamily, family_of
from worker.checkpoint.formats import plan_load
from worker.checkpoint.layout import lay_out
from worker.checkpoint.memory import LEAST_TOKENS, Held, ModelSize, count_weights
from worker.checkpoint.placement import Placement, place
from worker.checkpoint.plan import LoadPlan, PlannedTensor
from worker.checkpoint.preflight import (
    rehearse,
    require_tensors,
    require_vocabulary,
    skeleton,
)
from worker.checkpoint.quantise import require_widths
from worker.checkpoint.spec import LoadSpec


@dataclass(frozen=True)
class Survey:
    """What is to be loaded, where to, and what it will take.

    Attributes:
        spec: what was asked for.
        plan: which files hold what.
        tensors: every tensor of the model that is on disk, by parameter name.
        family: the classes that carry it out.
        bones: the model without data, on torch's "meta" device.
        placement: where it goes.
        size: what its memory is computed from.
    """

    spec: LoadSpec
    plan: LoadPlan
    tensors: Mapping[str, PlannedTensor]
    family: ModelFamily
    bones: Any
    placement: Placement
    size: ModelSize

    @property
    def held(self) -> Held:
        """How its weights are to be held."""
        return Held(self.spec.quantisation, self.placement.dtype, self.spec.four_bit)


def survey(spec: LoadSpec) -> Survey:
    """Looks at a checkpoint and checks all that can be checked but for free memory.

    Raises:
        CheckpointError: it does not load; the message names the cause and the way out.
    """
    plan = plan_load(spec)
    _require_mergeable(spec, plan)
    _require_not_quantised_twice(spec, plan)
    tensors = plan.tensors()
    placement = place(spec, tensors)
    family = family_of(plan, spec)
    bones = skeleton(family.model_class, family.config, spec.attn_implementation)
    if family.names_are_final:
        require_tensors(bones, plan, tensors)
    else:
        require_vocabulary(bones, family.tokenizer, plan.tokenizer_folder)
        # What is quantised on disk has other tensors than its model.
        if not plan.config.get("quantization_config"):
            rehearse(family.model_class, family.config, plan, tensors)
    if plan.adapter is not None:
        check_adapter(bones, plan.adapter)
    require_widths(bones, spec, placement.device)
    placement = lay_out(spec, plan, placement, bones)
    adapter = 0 if plan.adapter is None else adapter_weights(plan.adapter)
    tokens = LEAST_TOKENS + (family.image_tokens or 0)
    size = ModelSize(
        counts=count_weights(bones, placement, adapter),
        config=family.config,
        largest_tensor=max((tensor.header.num_bytes for tensor in tensors.values()), default=0),
        least_tokens=min(tokens, plan.context_length or tokens),
    )
    return Survey(spec, plan, tensors, family, bones, placement, size)


def _require_mergeable(spec: LoadSpec, plan: LoadPlan) -> None:
    if not spec.merge_lora:
        return
    if plan.adapter is None:
        raise AdapterError(f"--merge-lora: {plan.folder.path} is no adapter, nothing can be merged")
    if spec.quantisation is not Quantisation.NONE:
        raise QuantisationError(
            f"--merge-lora would round the adapter to {spec.quantisation} together with its base, "
            "which loses what it has learned; leave it unmerged, or load in full precision"
        )


def _require_not_quantised_twice(spec: LoadSpec, plan: LoadPlan) -> None:
    stored = plan.config.get("quantization_config")
    if stored and spec.quantisation is not Quantisation.NONE:
        raise QuantisationError(
            f"{plan.tokenizer_folder.path} is quantised already "
            f"({stored.get('quant_method', 'it does not say how')}) and loads as it is: leave out "
            f"--load-{spec.quantisation}, or give the checkpoint that it was made from"
        )
