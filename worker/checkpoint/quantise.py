"""bitsandbytes settings: the language model's linear layers, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from controller.protocol.fleet import Quantisation
from worker.checkpoint.errors import QuantisationError
from worker.checkpoint.plan import PROJECTORS, TOWERS, is_within
from worker.checkpoint.spec import LoadSpec

# By module name. The head decides between tokens, and the encoder and projector are small beside
# the language model: quantising them saves little and costs the most accuracy.
_KEPT = ["lm_head", "language_model.lm_head", "text_model.lm_head", *TOWERS, *PROJECTORS]

BLOCK = 64  # weights that share a scale; bitsandbytes' default
_PACKED_ROWS = 32


def quiet_bitsandbytes() -> None:
    """Silences what bitsandbytes says about itself; for before its first import, also by PEFT.

    It warns of an optional kernel that is not installed, and once for each layer, at its first use,
    of the dtype that int8 products are computed in.
    """
    for module in ("backends.cpu.ops", "autograd._functions"):
        logging.getLogger(f"bitsandbytes.{module}").setLevel(logging.ERROR)


def is_kept(module: str) -> bool:
    """Whether a module stays as it is, by the name that it has in the whole model."""
    return is_within(module, _KEPT)


def quantisation_config(spec: LoadSpec, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Transformers' config for a spec; None for full precision.

    Args:
        spec: what was asked for.
        dtype: that 4-bit weights are unpacked to for computing.

    Raises:
        QuantisationError: bitsandbytes is not installed.
    """
    if spec.quantisation is Quantisation.NONE:
        return None
    quiet_bitsandbytes()
    try:
        import bitsandbytes  # noqa: F401, PLC0415 - asked for only where it is needed
    except ImportError as error:
        raise QuantisationError(
            f"--load-{spec.quantisation} needs bitsandbytes, which cannot be imported ({error}); "
            "install it, or load in full precision"
        ) from error
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    if spec.quantisation is Quantisation.INT8:
        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=spec.int8_threshold,
            llm_int8_skip_modules=_KEPT,
        )
    four_bit = spec.four_bit
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=four_bit.quant_type,
        bnb_4bit_use_double_quant=four_bit.double_quantisation,
        bnb_4bit_compute_dtype=(
            dtype if four_bit.compute_dtype == "auto" else four_bit.compute_dtype
        ),
        bnb_4bit_quant_storage=four_bit.storage,
        llm_int8_skip_modules=_KEPT,
    )


def require_widths(bones: nn.Module, spec: LoadSpec, device: torch.device) -> None:
    """Checks that bitsandbytes' kernels take every layer that is to be held in 4 bits.

    On a CPU a block of 64 weights must not reach into the next row: its unpacking gives wrong
    numbers then, or fails at the first question. The kernels for AVX512-BF16 also take outputs by
    32. (bitsandbytes 0.50, ``functional._convert_weight_packed_for_cpu``.)

    Args:
        bones: the model's skeleton.
        spec: what was asked for.
        device: where its layers go.

    Raises:
        QuantisationError: a layer has another width.
    """
    if spec.quantisation is not Quantisation.NF4 or device.type != "cpu":
        return
    for name, layer in linear_layers(bones):
        sides = [("inputs", layer.in_features, BLOCK)]
        if _packs_by_32():
            sides.append(("outputs", layer.out_features, _PACKED_ROWS))
        for side, width, multiple in sides:
            if width % multiple:
                raise QuantisationError(
                    f"--load-4bit cannot hold {name} on a CPU: it has {width} {side}, and "
                    f"bitsandbytes takes multiples of {multiple} there. Use --load-8bit, load in "
                    "full precision, or use a GPU"
                )


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers that quantisation covers, with their names in the whole model."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and not is_kept(name):
            yield name, module


def _packs_by_32() -> bool:
    quiet_bitsandbytes()
    try:
        from bitsandbytes.functional import has_avx512bf16  # noqa: PLC0415 - only where needed
    except ImportError:  # said by `quantisation_config`
        return False
    return bool(has_avx512bf16())
