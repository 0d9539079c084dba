"""Where a model goes and in which dtype: decided from the flags, the device and the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from controller.protocol.fleet import Quantisation
from worker.checkpoint.errors import CheckpointError, QuantisationError
from worker.checkpoint.plan import PlannedTensor
from worker.checkpoint.spec import LoadSpec

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# bitsandbytes' own kernels; on anything else it has none.
_QUANTISED_DEVICES = ("cpu", "cuda", "xpu")


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, and the dtype of the weights that are not quantised."""

    device: torch.device
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """E.g. "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")


def place(spec: LoadSpec, tensors: Mapping[str, PlannedTensor]) -> Placement:
    """The device and dtype that a spec means on this machine.

    Raises:
        CheckpointError: there is no such device or dtype.
        QuantisationError: bitsandbytes does not serve the device.
    """
    device = _parse(spec.device)
    if spec.quantisation is not Quantisation.NONE and device.type not in _QUANTISED_DEVICES:
        raise QuantisationError(
            f"bitsandbytes cannot hold {spec.quantisation} weights on {device.type}; it serves "
            f"{', '.join(_QUANTISED_DEVICES)}. Load in full precision, or with --device cpu"
        )
    _require_device(device)
    return Placement(device, _dtype(spec.dtype, device, tensors))


def _parse(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(
            f"--device {name!r} is not a device; known are auto, cpu, cuda, cuda:N and mps"
        ) from error
    # transformers and torch name the same GPU differently without an index.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _require_device(device: torch.device) -> None:
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(
            f"--device {device} asks for a GPU that is not there: torch sees "
            f"{torch.cuda.device_count()}. Use --device cpu, or install a torch that is built for "
            "this machine's GPU"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise CheckpointError("--device mps: this machine has no Metal device; use --device cpu")


def _dtype(
    name: str, device: torch.device, tensors: Mapping[str, PlannedTensor]
) -> torch.dtype:  # fmt: skip
    if name != "auto":
        if name not in _DTYPES:
            raise CheckpointError(f"--dtype {name!r} is not one of auto, {', '.join(_DTYPES)}")
        return _DTYPES[name]
    stored = _stored_dtype(tensors)
    if device.type == "cpu":
        # CPUs compute float16 slowly or not at all.
        return torch.bfloat16 if stored is torch.bfloat16 else torch.float32
    if stored is torch.float32:
        return torch.bfloat16 if device.type == "cuda" else torch.float16
    return stored


def _stored_dtype(tensors: Mapping[str, PlannedTensor]) -> torch.dtype:
    """The dtype that most of a checkpoint's bytes are in."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors.values():
        dtype = _DTYPES.get(tensor.header.dtype)
        if dtype is not None:
            sizes[dtype] += tensor.header.num_bytes
    return sizes.most_common(1)[0][0] if sizes else torch.float32
