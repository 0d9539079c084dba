"""Projectors that transformers' Llava does not have: one linear layer, or more than two."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
)

_BASES = {
    "llava": LlavaForConditionalGeneration,
    "llava_next": LlavaNextForConditionalGeneration,
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
}


def model_class(model_type: str, depth: int) -> Any:  # noqa: ANN401 - transformers is untyped
    """Transformers' Llava class of a model type, with a projector of ``depth`` linear layers.

    Two layers are what transformers has; for other depths the class is derived, and differs in
    that one module.
    """
    base = _BASES[model_type]
    if depth == 2:
        return base

    def build(self: Any, config: Any) -> None:  # noqa: ANN401
        base.__init__(self, config)
        self.model.multi_modal_projector = _projector(
            depth, config.vision_config.hidden_size, config.text_config.hidden_size
        )

    return type(base.__name__, (base,), {"__init__": build, "__module__": __name__})


def _projector(depth: int, vision_size: int, text_size: int) -> nn.Sequential:
    """LLaVA's ``mlpNx_gelu``; for a depth of 1 its ``linear``."""
    layers: list[nn.Module] = [nn.Linear(vision_size, text_size)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(text_size, text_size)]
    return nn.Sequential(*layers)
