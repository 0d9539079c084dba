"""LLaVA's way with images as transformers' processors have it."""

from __future__ import annotations

from typing import Any

from transformers import (
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

from worker.checkpoint.errors import ArchitectureError
from worker.checkpoint.plan import ImageSetup
from worker.vision.clip import ClipProcessor


def export_processor(setup: ImageSetup, tokenizer: Any, config: Any, *, template: str) -> Any:  # noqa: ANN401
    """The processor of a converted checkpoint.

    Args:
        setup: how images reach the encoder.
        tokenizer: transformers', with a token for an image.
        config: the converted model's transformers config.
        template: Jinja for messages of parts.

    Raises:
        ArchitectureError: the model is of a class whose processor is not written here.
    """
    clip = ClipProcessor.from_config(setup.preprocessor, setup.tile_size)
    side = {"height": clip.side, "width": clip.side}
    settings: dict[str, Any] = {
        "size": {"shortest_edge": clip.side} if clip.keeps_aspect else side,
        "crop_size": side,
        "do_center_crop": clip.keeps_aspect,
        "resample": clip.resample,
        "rescale_factor": clip.scale,
        "image_mean": list(clip.mean),
        "image_std": list(clip.std),
    }
    if config.model_type == "llava_next":
        pinpoints = [list(pinpoint) for pinpoint in setup.pinpoints]
        images = LlavaNextImageProcessorPil(**settings, image_grid_pinpoints=pinpoints)
        make = LlavaNextProcessor
    elif config.model_type == "llava":
        images = LlavaImageProcessorPil(**settings, do_pad=setup.aspect_ratio == "pad")
        make = LlavaProcessor
    else:
        raise ArchitectureError(
            f"a checkpoint with image_aspect_ratio {setup.aspect_ratio!r} runs on transformers' "
            f"{config.model_type}, whose processor needs torchvision; it is served as it is, and "
            "not converted"
        )
    return make(
        images,
        tokenizer,
        patch_size=setup.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        # CLIP's first feature stands for the whole image; the "default" strategy drops it.
        num_additional_image_tokens=int(config.vision_config.model_type.startswith("clip")),
        chat_template=template,
    )
