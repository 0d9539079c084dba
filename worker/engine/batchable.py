"""Which models can share a batch: those whose rows differ in nothing but their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.checkpoint.load import LoadedCheckpoint

# Language models whose decoder takes per-row positions and a given mask, and nothing else.
LANGUAGE_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Models whose images are features in place of their tokens, and nothing else.
VISION_LANGUAGE_MODELS = frozenset({"llava", "llava_next"})
# Rotary embeddings that depend on a token's own position alone.
ROPE_TYPES = frozenset({"default", "linear", "llama3"})


def why_not_batched(checkpoint: LoadedCheckpoint) -> str | None:
    """Why a model must run one answer at a time; None if answers can share a batch."""
    if len(checkpoint.devices) > 1:
        return f"its layers are on {', '.join(map(str, checkpoint.devices))}"
    model: Any = checkpoint.model
    return why_not(model.config)


def why_not(config: Any) -> str | None:  # noqa: ANN401 - transformers is untyped
    """`why_not_batched` by transformers' config alone."""
    text = config.get_text_config(decoder=True)
    if text is not config and config.model_type not in VISION_LANGUAGE_MODELS:
        return f"how {config.model_type} places its images has not been checked in batches"
    if text.model_type not in LANGUAGE_MODELS:
        return f"{text.model_type} language models have not been checked in batches"
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or _window(text):
        return "its attention has a sliding window"
    rope = getattr(text, "rope_parameters", None) or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type not in ROPE_TYPES or "mrope_section" in rope:
        return f"its positions ({rope_type}) depend on more than a token's own place"
    attention = text._attn_implementation  # noqa: SLF001 - it has no public name
    if attention != "sdpa":
        return f"its attention ({attention}) is not torch's scaled_dot_product_attention"
    return None


def _window(text: Any) -> bool:  # noqa: ANN401
    """Whether a window is in use; Qwen's configs name one that is not."""
    window = getattr(text, "sliding_window", None)
    return bool(window) and getattr(text, "use_sliding_window", True)
