"""What an operator asks for: one checkpoint, how it is held, where it runs. Pure; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from controller.protocol.fleet import Quantisation
from controller.protocol.naming import name_of_path

QuantType = Literal["nf4", "fp4"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
StorageDtype = Literal["uint8", "float32", "bfloat16", "float16"]
AttentionName = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


@dataclass(frozen=True, slots=True)
class FourBit:
    """How 4-bit weights are packed and computed with; bitsandbytes' ``bnb_4bit_*``.

    Attributes:
        quant_type: the 16 values that a weight may have.
        double_quantisation: whether the scales of the blocks are quantised too.
        compute_dtype: that weights are unpacked to; "auto" is the dtype of the others.
        storage: that packed weights lie in; the bytes are the same.
    """

    quant_type: QuantType = "nf4"
    double_quantisation: bool = True
    compute_dtype: ComputeDtype = "auto"
    storage: StorageDtype = "uint8"


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One checkpoint to load.

    Attributes:
        model_path: a folder, or a repository on the Hugging Face hub ("owner/name").
        model_base: the base language model of a checkpoint that is not whole by itself
            (a LoRA adapter, a projector alone).
        model_name: the name to serve it under; without it, `served_name` derives one.
        quantisation: how the language model's linear layers are held.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: "auto", "float32", "bfloat16" or "float16"; the dtype of what is not quantised.
        chat_template: a template of ours by name, or a Jinja file; None: the checkpoint decides.
        merge_lora: add the adapter into the base's weights instead of keeping it apart.
        revision: branch, tag or commit, where the hub is asked.
        attn_implementation: transformers' attention, e.g. "sdpa"; None lets transformers choose.
        int8_threshold: inputs beyond it are multiplied in full precision (LLM.int8()); 0: none.
        four_bit: the details of 4-bit loading.
        device_map: how the model is laid out over devices: one of `budgets.STRATEGIES`, a device,
            or modules and their devices; None: all on ``device``.
        max_memory: bytes that the weights may take on each device, for a strategy.
        num_gpus: the first so many GPUs, for a strategy; None: all that are visible.
        trust_remote_code: whether code that came with a checkpoint may run.
        mmap: whether weights may be mapped files; else they are read.
    """

    model_path: str
    model_base: str | None = None
    model_name: str | None = None
    quantisation: Quantisation = Quantisation.NONE
    device: str = "auto"
    dtype: str = "auto"
    chat_template: str | None = None
    merge_lora: bool = False
    revision: str | None = None
    attn_implementation: AttentionName | None = None
    int8_threshold: float = 6.0
    four_bit: FourBit = FourBit()
    device_map: str | Mapping[str, str] | None = None
    max_memory: Mapping[str, int] | None = None
    num_gpus: int | None = None
    trust_remote_code: bool = False
    mmap: bool = True

    @property
    def served_name(self) -> str:
        """The given name, or the checkpoint's own."""
        return self.model_name or name_of_path(self.model_path)


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """A checkpoint over a base that is loaded once: the name to serve it under, and its folder."""

    name: str
    path: str
