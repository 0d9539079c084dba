"""bitsandbytes settings: the language model's linear layers, and nothing else."""

from __future__ import annotations

import logging
from typing import Any

import torch

from controller.protocol.fleet import Quantisation
from worker.checkpoint.errors import QuantisationError
from worker.checkpoint.spec import LoadSpec

# By module name. The head decides between tokens, and the encoder and projector are small beside
# the language model: quantising them saves little and costs the most accuracy.
_KEPT = [
    "lm_head",
    "model.vision_tower",
    "model.multi_modal_projector",
    "model.visual",
    "model.vision_model",
    "model.connector",
]


def quiet_bitsandbytes() -> None:
    """Silences what bitsandbytes says about itself; for before its first import, also by PEFT.

    It warns of an optional kernel that is not installed, and once for each layer, at its first use,
    of the dtype that int8 products are computed in.
    """
    for module in ("backends.cpu.ops", "autograd._functions"):
        logging.getLogger(f"bitsandbytes.{module}").setLevel(logging.ERROR)


def is_kept(module: str) -> bool:
    """Whether a module stays as it is, by the name that it has in the whole model."""
    return any(module == name or module.startswith(f"{name}.") for name in _KEPT)


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
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=spec.double_quantisation,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_KEPT,
    )
