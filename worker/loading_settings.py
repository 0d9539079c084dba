"""Which checkpoint, and how it is held: the settings of everything that loads or inspects one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from controller.chassis.settings import FlagSettings
from controller.protocol.fleet import Quantisation
from worker.checkpoint.budgets import (
    STRATEGIES,
    parse_device_map,
    parse_max_memory,
)
from worker.checkpoint.spec import (
    AttentionName,
    ComputeDtype,
    FourBit,
    LoadSpec,
    QuantType,
    StorageDtype,
)


class LoadingSettings(FlagSettings):
    """A checkpoint and how it is held."""

    model_path: str = Field(
        min_length=1, description="checkpoint: a folder, or owner/name on the Hugging Face hub"
    )
    model_base: str | None = Field(
        default=None, description="base language model of a LoRA or a projector-only checkpoint"
    )
    model_name: str | None = Field(
        default=None, description="name to serve it under; without it, the folder's"
    )
    load_8bit: bool = Field(default=False, description="hold the language model in 8 bits")
    load_4bit: bool = Field(default=False, description="hold the language model in 4 bits")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:N or mps; with auto and cuda, a model that does not fit "
        "on the first GPU is laid out over all that are visible",
    )
    device_map: str | Mapping[str, str] | None = Field(
        default=None,
        description="how it is laid out over devices: auto, balanced, balanced_low_0 or "
        'sequential; a device; or JSON, {"model.vision_tower": 0, "model.language_model": 1, '
        '"lm_head": 1}',
    )
    max_memory: Mapping[str, int] | None = Field(
        default=None,
        description="what its weights may take on each device: 0=20GiB,1=20GiB,cpu=60GiB; the CPU "
        "holds layers, slowly, only where it is named here",
    )
    num_gpus: int | None = Field(
        default=None, ge=1, description="lay it out over the first so many of the visible GPUs"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of weights that are not quantised"
    )
    int8_threshold: float = Field(
        default=6.0,
        ge=0,
        allow_inf_nan=False,
        description="with --load-8bit: inputs beyond it are multiplied in full precision; 0: none",
    )
    bnb_4bit_quant_type: QuantType = Field(
        default="nf4", description="with --load-4bit: the values that a weight may have"
    )
    bnb_4bit_use_double_quant: bool = Field(
        default=True, description="with --load-4bit: quantise the scales too"
    )
    bnb_4bit_compute_dtype: ComputeDtype = Field(
        default="auto",
        description="with --load-4bit: what weights are unpacked to; auto is --dtype",
    )
    bnb_4bit_quant_storage: StorageDtype = Field(
        default="uint8", description="with --load-4bit: the dtype that packed weights lie in"
    )
    attn_implementation: AttentionName | None = Field(
        default=None,
        description="how attention is computed; without it, transformers decides. Answers share a "
        "batch with sdpa alone",
    )
    chat_template: str | None = Field(
        default=None, description="a template of ours by name, or a Jinja file"
    )
    merge_lora: bool = Field(
        default=False, description="add an adapter into its base's weights instead of beside them"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    trust_remote_code: bool = Field(
        default=False,
        description="run code that comes with a checkpoint, for what transformers itself has not",
    )

    mmap: bool = Field(
        default=True,
        description="map weights that are taken as they are, so that loading is quick and workers "
        "of the same files share memory; with --no-mmap they are read, and the files may then be "
        "overwritten",
    )

    @field_validator("device_map", mode="before")
    @classmethod
    def _read_device_map(cls, value: object) -> object:
        if isinstance(value, Mapping):  # from a file
            value = json.dumps(dict(value))
        return parse_device_map(value) if isinstance(value, str) else value

    @field_validator("max_memory", mode="before")
    @classmethod
    def _read_max_memory(cls, value: object) -> object:
        if isinstance(value, Mapping):
            value = ",".join(f"{device}={size}" for device, size in value.items())
        return parse_max_memory(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        if self.load_8bit and self.load_4bit:
            raise ValueError(
                "--load-8bit and --load-4bit exclude each other: a model is held one way; start a "
                "second worker for the other"
            )
        for needed, is_given, names in (
            ("--load-8bit", self.load_8bit, ("int8_threshold",)),
            ("--load-4bit", self.load_4bit, [n for n in _FIELDS if n.startswith("bnb_4bit_")]),
        ):
            for name in names:
                if not is_given and getattr(self, name) != _FIELDS[name].default:
                    raise ValueError(f"--{name.replace('_', '-')} says nothing without {needed}")
        return self

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        spread = [
            flag
            for flag, value in (
                ("--device-map", self.device_map),
                ("--max-memory", self.max_memory),
                ("--num-gpus", self.num_gpus),
            )
            if value is not None
        ]
        if spread and self.device not in {"auto", "cuda"}:
            raise ValueError(
                f"--device {self.device} puts the model on one device, {spread[0]} lays it out "
                "over several: give one of them"
            )
        if len(spread) > 1 and self.device_map is not None and self.device_map not in STRATEGIES:
            raise ValueError(
                f"{spread[1]} is for the strategies of --device-map ({', '.join(STRATEGIES)}), "
                "which it then bounds; a device or JSON already says what goes where"
            )
        if self.num_gpus is not None and self.max_memory is not None:
            beyond = [f"cuda:{index}" for index in range(self.num_gpus)]
            named = [name for name in self.max_memory if name != "cpu" and name not in beyond]
            if named:
                raise ValueError(
                    f"--max-memory names {named[0]}, and --num-gpus {self.num_gpus} leaves it out"
                )
        return self

    @property
    def quantisation(self) -> Quantisation:
        """How the language model is to be held."""
        if self.load_8bit:
            return Quantisation.INT8
        return Quantisation.NF4 if self.load_4bit else Quantisation.NONE

    def load_spec(self) -> LoadSpec:
        """What is to be loaded."""
        return LoadSpec(
            model_path=self.model_path,
            model_base=self.model_base,
            model_name=self.model_name,
            quantisation=self.quantisation,
            device=self.device,
            dtype=self.dtype,
            chat_template=self.chat_template,
            merge_lora=self.merge_lora,
            revision=self.revision,
            attn_implementation=self.attn_implementation,
            int8_threshold=self.int8_threshold,
            four_bit=FourBit(
                quant_type=self.bnb_4bit_quant_type,
                double_quantisation=self.bnb_4bit_use_double_quant,
                compute_dtype=self.bnb_4bit_compute_dtype,
                storage=self.bnb_4bit_quant_storage,
            ),
            device_map=self.device_map,
            max_memory=self.max_memory,
            num_gpus=self.num_gpus,
            trust_remote_code=self.trust_remote_code,
            mmap=self.mmap,
        )


_FIELDS = LoadingSettings.model_fields
