"""How a worker of the fleet file loads its checkpoint: the worker's flags, by their names.

What a value may be is the worker's to say; it refuses a wrong one before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import Field

from controller.fleet.section import Section


class Loading(Section):
    """A worker's further flags for loading; each key is the flag's name."""

    dtype: str | None = Field(
        default=None, description="of weights that are not quantised: float32, bfloat16, float16"
    )
    device_map: str | dict[str, str | int] | None = Field(
        default=None,
        description="how it is laid out over devices: auto, balanced, balanced_low_0, sequential, "
        "or modules and their devices: {model.vision_tower: 0, model.language_model: 1}",
    )
    max_memory: str | dict[str | int, str | int] | None = Field(
        default=None,
        description="what its weights may take on each device: {0: 20GiB, 1: 20GiB, cpu: 60GiB}",
    )
    num_gpus: int | None = Field(
        default=None, ge=1, description="lay it out over the first so many GPUs that it may see"
    )
    int8_threshold: float | None = Field(
        default=None, description="8-bit: inputs beyond it are multiplied in full precision"
    )
    bnb_4bit_quant_type: str | None = Field(default=None, description="4-bit: nf4 or fp4")
    bnb_4bit_use_double_quant: bool | None = Field(
        default=None, description="4-bit: whether the scales are quantised too"
    )
    bnb_4bit_compute_dtype: str | None = Field(
        default=None, description="4-bit: what weights are unpacked to"
    )
    bnb_4bit_quant_storage: str | None = Field(
        default=None, description="4-bit: the dtype that packed weights lie in"
    )
    attn_implementation: str | None = Field(
        default=None, description="how attention is computed: sdpa, eager, flash_attention_2, ..."
    )
    chat_template: str | None = Field(
        default=None,
        description="a template by its name, or a Jinja file relative to this file (./...)",
    )
    merge_lora: bool | None = Field(
        default=None, description="add an adapter into its base's weights"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    trust_remote_code: bool | None = Field(
        default=None, description="run code that comes with a checkpoint"
    )

    mmap: bool | None = Field(
        default=None, description="false: read weights, and map none of their files"
    )

    def flags(self) -> Iterator[str]:
        """The command line's words for what is given."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            flag = name.replace("_", "-")
            if value is None:
                continue
            if isinstance(value, bool):
                yield f"--{flag}" if value else f"--no-{flag}"
            else:
                yield from (f"--{flag}", _word(name, value))


def _word(name: str, value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    if name == "max_memory":
        return ",".join(f"{device}={size}" for device, size in value.items())
    return json.dumps(dict(value))
