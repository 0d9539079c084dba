"""Which models can share a batch, and what their rows need in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from worker.checkpoint.load import LoadedCheckpoint

# Language models whose decoder takes per-row positions and a given mask, and nothing else.
LANGUAGE_MODELS = frozenset(
    {
        *("cohere2", "gemma", "gemma3_text", "granite", "llama", "mistral", "olmo2", "phi3"),
        *("qwen2", "qwen2_5_vl_text", "qwen2_vl_text", "qwen3", "qwen3_vl_text", "smollm3"),
    }
)
# Models whose images are features in place of their tokens, which look back like any other.
FEATURES_IN_PLACE = frozenset(
    {
        *("aya_vision", "deepseek_vl", "idefics2", "idefics3", "internvl", "llava"),
        *("llava_next", "llava_onevision", "mistral3", "ovis2", "qwen2_5_vl", "qwen2_vl"),
        *("smolvlm", "vipllava"),
    }
)
# Models that do more with an image: their prompts with images are read whole, by their own code.
READ_WHOLE = frozenset({"gemma3", "paligemma", "qwen3_vl"})
# Rotary embeddings that depend on a token's own position alone.
ROPE_TYPES = frozenset({"default", "linear", "llama3", "proportional", "yarn"})
_KINDS = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True, slots=True)
class Batching:
    """How a model's rows share a batch.

    Attributes:
        reads_images_in_parts: whether images are features in place of their tokens, so that a
            prompt can be read in parts and from a known beginning on. Text always can.
        has_mrope: whether an image's tokens have positions in three dimensions.
        kinds: of the layers' attention.
        window: tokens that layers with a sliding window look back, themselves included.
    """

    reads_images_in_parts: bool = True
    has_mrope: bool = False
    kinds: frozenset[str] = frozenset({"full_attention"})
    window: int | None = None

    def mask(
        self, full: torch.Tensor, near: torch.Tensor | None
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """The masks of a step as the model takes them; see `KVSlots.begin_step`."""
        if near is None:
            return full
        if len(self.kinds) == 1:
            return near
        return {"full_attention": full, "sliding_attention": near}


def why_not_batched(checkpoint: LoadedCheckpoint) -> str | None:
    """Why a model must run one answer at a time; None if answers can share a batch."""
    if len(checkpoint.devices) > 1:
        return f"its layers are on {', '.join(map(str, checkpoint.devices))}"
    model: Any = checkpoint.model
    return why_not(model.config)


def why_not(config: Any) -> str | None:  # noqa: ANN401 - transformers is untyped
    """`why_not_batched` by transformers' config alone."""
    found = batching_of(config)
    return found if isinstance(found, str) else None


def batching_of(config: Any) -> Batching | str:  # noqa: ANN401
    """How a model of this config shares a batch, or why it cannot."""
    text = config.get_text_config(decoder=True)
    if type(config).__module__.startswith("transformers_modules"):
        return "it runs on code that came with it, which has not been checked in batches"
    if text is not config and config.model_type not in FEATURES_IN_PLACE | READ_WHOLE:
        return f"how {config.model_type} places its images has not been checked in batches"
    if text.model_type not in LANGUAGE_MODELS:
        return f"{text.model_type} language models have not been checked in batches"
    window = _window(text)
    kinds = frozenset(getattr(text, "layer_types", None) or [_only_kind(window)])
    if kinds - _KINDS:
        return f"its attention ({', '.join(sorted(kinds - _KINDS))}) is more than a mask"
    for name, rope_type in _rope_types(text).items():
        if rope_type not in ROPE_TYPES:
            return f"its positions ({name}{rope_type}) depend on more than a token's own place"
    attention = text._attn_implementation  # noqa: SLF001 - it has no public name
    if attention != "sdpa":
        return f"its attention ({attention}) is not torch's scaled_dot_product_attention"
    return Batching(
        reads_images_in_parts=config.model_type not in READ_WHOLE,
        has_mrope="mrope_section" in (getattr(text, "rope_parameters", None) or {}),
        kinds=kinds,
        window=window if "sliding_attention" in kinds else None,
    )


def _window(text: Any) -> int | None:  # noqa: ANN401
    """The window in use; Qwen's configs name one that is not."""
    window = getattr(text, "sliding_window", None)
    return int(window) if window and getattr(text, "use_sliding_window", True) else None


def _only_kind(window: int | None) -> str:
    return "full_attention" if window is None else "sliding_attention"


def _rope_types(text: Any) -> dict[str, str]:  # noqa: ANN401
    """The kinds of rotary embeddings; some models have one for each kind of layer."""
    rope = getattr(text, "rope_parameters", None) or {}
    if any(isinstance(value, dict) for value in rope.values()):
        return {f"{kind}: ": value.get("rope_type", "default") for kind, value in rope.items()}
    return {"": rope.get("rope_type", "default")}
