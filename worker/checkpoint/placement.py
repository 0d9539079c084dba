"""Where a model goes and in which dtype: decided from the flags, the device and the files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from controller.protocol.fleet import Quantisation
from worker.checkpoint.budgets import STRATEGIES
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
    """Where a model goes, and the dtype of its weights that are not quantised.

    Attributes:
        device: where inputs go: that of the embeddings.
        dtype: of the weights that are not quantised, and of keys and values.
        device_map: modules by the start of their names, where the model is laid out over devices;
            the longest match decides. Empty: all of it on ``device``.
    """

    device: torch.device
    dtype: torch.dtype
    device_map: Mapping[str, torch.device] = field(default_factory=dict)

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Those that hold a part of it, each once."""
        return tuple(dict.fromkeys(self.device_map.values())) or (self.device,)

    def device_of(self, name: str) -> torch.device:
        """Where a parameter goes, by its name in the whole model."""
        while name not in self.device_map:
            if not name:
                return self.device
            name = name.rpartition(".")[0]
        return self.device_map[name]

    @property
    def transformers_map(self) -> dict[str, torch.device | int | str]:
        """As ``from_pretrained`` takes it: GPUs of a layout by their numbers."""
        if not self.device_map:
            return {"": self.device}
        return {
            name: device.index if device.type == "cuda" else device.type
            for name, device in self.device_map.items()
        }

    @property
    def can_map(self) -> bool:
        """Whether its weights may be mapped files.

        Metal cannot use those; Windows would set aside memory for the whole of them.
        """
        return sys.platform != "win32" and all(device.type != "mps" for device in self.devices)

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
    device = _parse(_first_device(spec))
    if spec.quantisation is not Quantisation.NONE and device.type not in _QUANTISED_DEVICES:
        raise QuantisationError(
            f"bitsandbytes cannot hold {spec.quantisation} weights on {device.type}; it serves "
            f"{', '.join(_QUANTISED_DEVICES)}. Load in full precision, or with --device cpu"
        )
    require_device(device)
    return Placement(device, _dtype(spec.dtype, device, tensors))


def _first_device(spec: LoadSpec) -> str:
    """The flag that names a device; a layout over several is settled by `layout.lay_out`."""
    if spec.device_map is None or spec.device_map in STRATEGIES:
        return spec.device
    # Any of them serves to choose the dtype, a GPU best ("cpu" < "cuda:0").
    return spec.device_map if isinstance(spec.device_map, str) else max(spec.device_map.values())


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


def require_device(device: torch.device) -> None:
    """Checks that this machine has a device.

    Raises:
        CheckpointError: it has not.
    """
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(
            f"{device} is a GPU that is not there: torch sees {torch.cuda.device_count()}. Use "
            "--device cpu, or install a torch that is built for this machine's GPU"
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
