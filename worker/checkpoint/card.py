"""A surveyed checkpoint's card: what `paragone inspect` prints and ``/v1/models`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ContentPart, ImagePart, ImageUrl, TextPart
from controller.protocol.fleet import ModelCard, ModelFacts, Quantisation
from worker.checkpoint import llava
from worker.checkpoint.facts import facts_of
from worker.checkpoint.first_prompt import first_prompt
from worker.checkpoint.kv import context_bytes
from worker.checkpoint.memory import Held, WeightCount
from worker.checkpoint.prompt import Prompting
from worker.checkpoint.survey import Survey
from worker.checkpoint.templates import ChatTemplate

SAMPLE_QUESTION = "What is in this picture?"
SAMPLE_TEXT_QUESTION = "What is a lighthouse?"
# (width, height): a square, two photographs, a screen.
SIZES = ((336, 336), (1024, 768), (768, 1024), (1920, 1080))

# Where the projector is, in transformers' vision-language models.
_PROJECTORS = ("multi_modal_projector", "connector", "merger", "aligner", "embed_vision")


def card_of(surveyed: Survey) -> ModelCard:
    """All that is known of a checkpoint; renders a prompt and processes a few blank images.

    Raises:
        TemplateError: its template and processor cannot.
    """
    known = facts_of(surveyed.spec, surveyed.plan, surveyed.tensors)
    family, plan, placement = surveyed.family, surveyed.plan, surveyed.placement
    with first_prompt(plan.tokenizer_folder.path):
        prompt, tokens = sample_prompt(family.prompting), image_tokens(family.prompting)
    facts = ModelFacts(
        language_model=known.language_model,
        vision_tower=known.vision_tower,
        projector=_projector(surveyed),
        template=_template(family.template),
        sample_prompt=prompt,
        parameters_by_part={str(part): count for part, count in known.parameters_by_part.items()},
        image_tokens=tokens,
        context_bytes=(
            context_bytes(family.config, placement.dtype, plan.context_length)
            if plan.context_length
            else None
        ),
        weight_bytes=weight_bytes(surveyed),
        base_revision=plan.base.revision if plan.base else None,
        devices=[str(device) for device in placement.devices],
    )
    return known.card.model_copy(
        update={
            "dtype": placement.dtype_name,
            "image_tokens": family.image_tokens,
            "facts": facts,
        }
    )


def sample_prompt(prompting: Prompting) -> str:
    """The prompt of a first question; with an image where the model sees."""
    content: list[ContentPart] = [TextPart(text=SAMPLE_TEXT_QUESTION)]
    images = []
    if prompting.takes_images:
        content = [ImagePart(image_url=ImageUrl(url="data:,")), TextPart(text=SAMPLE_QUESTION)]
        images = [Image.new("RGB", SIZES[0], "white")]
    return prompting.prepare([ChatMessage(role="user", content=content)], images).text


def image_tokens(prompting: Prompting) -> dict[str, int]:
    """Tokens of blank images by their sizes, from the model's own processor."""
    if not prompting.takes_images:
        return {}
    return {f"{width}x{height}": prompting.image_tokens((width, height)) for width, height in SIZES}


def weight_bytes(surveyed: Survey) -> dict[str, int]:
    """What the weights take in memory, all devices together, by how they are held."""
    total = sum(surveyed.size.counts.values(), WeightCount())
    return {name: total.num_bytes(held) for name, held in ways_to_hold(surveyed).items()}


def ways_to_hold(surveyed: Survey) -> Mapping[str, Held]:
    """bfloat16, 8-bit and 4-bit, and the dtype that was asked for where that is another."""
    asked = replace(surveyed.held, quantisation=Quantisation.NONE)
    return {
        surveyed.placement.dtype_name: asked,
        "bfloat16": replace(asked, dtype=torch.bfloat16),
        Quantisation.INT8.value: replace(asked, quantisation=Quantisation.INT8),
        Quantisation.NF4.value: replace(asked, quantisation=Quantisation.NF4),
    }


def _template(template: ChatTemplate) -> str:
    """Ours by its name; others by file and folder, not where these lie on this machine."""
    if template.is_ours:
        return template.origin
    return "/".join(Path(template.origin).parts[-2:])


def _projector(surveyed: Survey) -> str | None:
    if surveyed.plan.image is not None:  # LLaVA's own config names it
        return str(llava.own_config(surveyed.plan).get("mm_projector_type", "linear"))
    modules: dict[str, Any] = {
        name.rpartition(".")[2]: module for name, module in surveyed.bones.named_modules()
    }
    found = next((modules[name] for name in _PROJECTORS if name in modules), None)
    return None if found is None else type(found).__name__
