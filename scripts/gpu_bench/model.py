"""A random LLaVA on a device, made where it is used: no file is written or read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from controller.protocol.fleet import ModelCard, Quantisation
from worker.checkpoint.load import LoadedCheckpoint
from worker.checkpoint.quantise import linear_layers, quiet_bitsandbytes
from worker.checkpoint.spec import LoadSpec

TOKENIZER = Path(__file__).parents[2] / "worker" / "demo" / "demo-llava"
CONTEXT = 4_096


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model: features, layers and heads of its two parts; words."""

    name: str
    vision: tuple[int, int, int, int]  # hidden, intermediate, layers, heads
    image: tuple[int, int]  # side and patch, pixels
    text: tuple[int, int, int, int]  # hidden, intermediate, layers, heads
    words: int


# LLaVA-1.5-7B as its config has it: CLIP ViT-L/14 at 336 pixels before a Llama.
SEVEN = Shape("LLaVA-1.5-7B", (1024, 4096, 24, 16), (336, 14), (4096, 11008, 32, 32), 32064)
TINY = Shape("a tiny LLaVA", (32, 64, 1, 2), (28, 14), (64, 128, 2, 2), 512)


def make_checkpoint(
    shape: Shape, held: Quantisation, device: torch.device, dtype: torch.dtype
) -> LoadedCheckpoint:
    """As a loaded one, for text alone; its language model quantised where that is asked for."""
    torch.manual_seed(0)
    hidden, intermediate, layers, heads = shape.vision
    side, patch = shape.image
    vision = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=side,
        patch_size=patch,
    )
    hidden, intermediate, layers, heads = shape.text
    text = LlamaConfig(
        vocab_size=shape.words,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=shape.words - 1)
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(  # noqa: SLF001 - has no public name
            config, dtype=dtype, attn_implementation="sdpa"
        ).eval()
    model.requires_grad_(False)
    # An answer never ends by itself, whoever makes it.
    model.generation_config.eos_token_id = None
    if held is not Quantisation.NONE:
        quantise(model, held, device, dtype)
    return LoadedCheckpoint(
        card=ModelCard(name="bench", quantisation=held),
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(TOKENIZER),
        prompting=None,  # type: ignore[arg-type] # it is asked in token ids
        context_length=CONTEXT,
        device=device,
        devices=(device,),
        dtype=dtype,
        eos_token_ids=frozenset(),
        image_token_id=shape.words - 1,
    )


def quantise(
    model: nn.Module, held: Quantisation, device: torch.device, dtype: torch.dtype
) -> None:
    """The layers and settings that the worker quantises, one after another, in place."""
    quiet_bitsandbytes()
    from bitsandbytes import functional  # noqa: PLC0415 - after it was silenced
    from bitsandbytes.nn import (  # noqa: PLC0415
        Int8Params,
        Linear4bit,
        Linear8bitLt,
        Params4bit,
    )

    spec = LoadSpec("", quantisation=held)
    for name, linear in list(linear_layers(model)):
        sizes = (linear.in_features, linear.out_features)
        layer: Any
        if held is Quantisation.NF4:
            how: dict[str, Any] = {
                "quant_type": spec.four_bit.quant_type,
                "compress_statistics": spec.four_bit.double_quantisation,
            }
            layer = Linear4bit(*sizes, bias=False, compute_dtype=dtype, device="meta", **how)
            layer.weight = Params4bit(
                linear.weight.data, requires_grad=False, module=layer, **how
            ).to(device)
        else:
            layer = Linear8bitLt(
                *sizes,
                bias=False,
                has_fp16_weights=False,
                threshold=spec.int8_threshold,
                device="meta",
            )
            packed, scales, _ = functional.int8_vectorwise_quant(linear.weight.data.half())
            layer.weight = Int8Params(
                packed, requires_grad=False, has_fp16_weights=False, CB=packed, SCB=scales
            )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.eval())


def bytes_of_a_step(model: nn.Module) -> int:
    """Weights that every decode step reads: the language model's, without its embeddings."""
    read = 0
    for name, parameter in model.named_parameters():
        if "vision_tower" in name or "multi_modal_projector" in name or "embed_tokens" in name:
            continue
        read += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # the scales, and the scales' own
            read += state.absmax.nbytes
            state = state.state2 if state.nested else None
        scales = getattr(parameter, "SCB", None)
        read += 0 if scales is None else scales.nbytes
    return read
