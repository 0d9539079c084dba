"""What kinds of values a config's keys may have, so that a wrong one is named and not stumbled on.

Only what is read here has a kind; the rest of a config is for transformers' classes to judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.checkpoint.errors import FormatError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values: in words, and as a test."""

    expected: str
    fits: Callable[[Any], bool]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


OBJECT = Kind("an object", lambda value: isinstance(value, dict))
NAME = Kind("a name", lambda value: isinstance(value, str))
NAMES = Kind(
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
)
WHOLE = Kind("a whole number", _is_whole)
COUNT = Kind("a whole number from 1", lambda value: _is_whole(value) and value > 0)
NUMBER = Kind("a number", _is_number)
COLOUR = Kind(
    "a list of three numbers",
    lambda value: isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)),
)
IDS = Kind(
    "a token's number, or a list of such",
    lambda value: _is_whole(value) or (isinstance(value, list) and all(map(_is_whole, value))),
)

# Of any config.json.
CONFIG: Mapping[str, Kind] = {
    "architectures": NAMES,
    "auto_map": OBJECT,
    "dtype": NAME,
    "model_type": NAME,
    "quantization_config": OBJECT,
    "rope_scaling": OBJECT,
    "text_config": OBJECT,
    "torch_dtype": NAME,
    "vision_config": OBJECT,
}
# Of a language model's part of it.
CONTEXT: Mapping[str, Kind] = {
    "max_position_embeddings": WHOLE,
    "max_seq_len": WHOLE,
    "max_sequence_length": WHOLE,
}
# Of an original LLaVA checkpoint's.
ORIGINAL: Mapping[str, Kind] = {
    "d_model": COUNT,
    "hidden_size": COUNT,
    "image_aspect_ratio": NAME,
    "intermediate_size": COUNT,
    "max_position_embeddings": COUNT,
    "max_seq_len": COUNT,
    "max_sequence_length": COUNT,
    "mm_hidden_size": COUNT,
    "mm_vision_select_layer": WHOLE,
    "mm_vision_tower": NAME,
    "n_heads": COUNT,
    "n_layers": COUNT,
    "num_attention_heads": COUNT,
    "num_hidden_layers": COUNT,
    "num_key_value_heads": COUNT,
    "vocab_size": COUNT,
}
# Of a vision tower's config, and of its preprocessor_config.json.
TOWER: Mapping[str, Kind] = {
    "hidden_size": COUNT,
    "image_size": COUNT,
    "num_attention_heads": COUNT,
    "num_hidden_layers": COUNT,
    "patch_size": COUNT,
}
PREPROCESSOR: Mapping[str, Kind] = {
    "image_mean": COLOUR,
    "image_std": COLOUR,
    "resample": WHOLE,
    "rescale_factor": NUMBER,
}
GENERATION: Mapping[str, Kind] = {
    "eos_token_id": IDS,
    "min_p": NUMBER,
    "repetition_penalty": NUMBER,
    "temperature": NUMBER,
    "top_k": WHOLE,
    "top_p": NUMBER,
}
ADAPTER: Mapping[str, Kind] = {
    "alpha_pattern": OBJECT,
    "base_model_name_or_path": NAME,
    "lora_alpha": NUMBER,
    "peft_type": NAME,
    "r": COUNT,
    "rank_pattern": OBJECT,
}


def require_kinds(values: Mapping[str, Any], kinds: Mapping[str, Kind], *, origin: Path) -> None:
    """Checks that values are of the kinds that they are read as; null stands for no value.

    Args:
        values: what a file says.
        kinds: by key.
        origin: the file, for the message.

    Raises:
        FormatError: one is of another kind; names it.
    """
    for key, kind in kinds.items():
        value = values.get(key)
        if value is not None and not kind.fits(value):
            raise FormatError(
                f"{origin} has {key} {json.dumps(value)}, where {kind.expected} is expected. "
                "Compare it with the one of the original download"
            )
