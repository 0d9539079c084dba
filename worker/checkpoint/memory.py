"""Whether a checkpoint fits: what it will take where, and what the devices have free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from controller.protocol.fleet import Quantisation
from worker.checkpoint.errors import MemoryShortageError, QuantisationError
from worker.checkpoint.host_memory import host_memory
from worker.checkpoint.kv import context_bytes
from worker.checkpoint.placement import Placement
from worker.checkpoint.quantise import BLOCK, linear_layers, require_widths
from worker.checkpoint.spec import FourBit, LoadSpec

_GIB = 1024**3
# Tokens beside its image that a context must have room for, or a worker would be of no use.
LEAST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Held:
    """How weights are held: what is quantised, and the dtype of the rest."""

    quantisation: Quantisation
    dtype: torch.dtype
    four_bit: FourBit = field(default_factory=FourBit)

    @property
    def bytes_per_weight(self) -> float:
        """Of a weight that quantisation covers; 8-bit rows have scales beside."""
        match self.quantisation:
            case Quantisation.NONE:
                return float(self.dtype.itemsize)
            case Quantisation.INT8:
                return 1.0
            case Quantisation.NF4:
                # Half a byte, and for each block a scale of 4 bytes; or, quantised in its turn, of
                # 1 byte with 4 bytes for 256 of them.
                scale = 1 + 4 / 256 if self.four_bit.double_quantisation else 4
                return 0.5 + scale / BLOCK


@dataclass(frozen=True, slots=True)
class WeightCount:
    """Numbers in a model, or in its part on one device, by what quantisation does to them."""

    quantisable: int = 0  # weights of the language model's linear layers
    rows: int = 0  # outputs of those layers; each has a scale in 8 bits
    others: int = 0

    def num_bytes(self, held: Held) -> int:
        """What they take in memory."""
        scales = 4 * self.rows if held.quantisation is Quantisation.INT8 else 0
        covered = int(self.quantisable * held.bytes_per_weight) + scales
        return covered + self.others * held.dtype.itemsize

    def __add__(self, other: WeightCount) -> WeightCount:
        return WeightCount(
            self.quantisable + other.quantisable,
            self.rows + other.rows,
            self.others + other.others,
        )


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that serving takes at least, on one device."""

    weights: int
    context: int  # keys and values of the shortest useful context
    loading: int  # the largest tensor, which is there twice for a moment

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.context + self.loading


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model's memory is computed from.

    Attributes:
        counts: its weights on each device.
        config: transformers' config.
        largest_tensor: bytes of its largest tensor, as it lies on disk.
        least_tokens: of the shortest useful context.
    """

    counts: Mapping[torch.device, WeightCount]
    config: Any
    largest_tensor: int
    least_tokens: int

    def need(self, held: Held) -> dict[torch.device, MemoryNeed]:
        """What each device has to have."""
        context = context_bytes(self.config, held.dtype, self.least_tokens)
        sizes = {device: count.num_bytes(held) for device, count in self.counts.items()}
        total = max(1, sum(sizes.values()))
        # Keys and values lie with their layers, so about as the weights do.
        return {
            device: MemoryNeed(size, context * size // total, self.largest_tensor)
            for device, size in sizes.items()
        }

    def on(self, device: torch.device) -> ModelSize:
        """The same model, all of it on one device."""
        return replace(self, counts={device: sum(self.counts.values(), WeightCount())})


def count_weights(
    bones: Any,  # noqa: ANN401 - transformers is untyped
    placement: Placement,
    adapter_weights: int = 0,
) -> dict[torch.device, WeightCount]:
    """The weights of a skeleton on each device; an adapter's count with the first."""
    covered = {f"{name}.weight": layer for name, layer in linear_layers(bones)}
    tied = set(getattr(bones, "all_tied_weights_keys", {}))
    counts = {placement.device: WeightCount(others=adapter_weights)}
    for name, parameter in bones.named_parameters():
        if name in tied:
            continue
        device = placement.device_of(name)
        layer = covered.get(name)
        if layer is None:
            count = WeightCount(others=parameter.numel())
        else:
            count = WeightCount(parameter.numel(), layer.out_features)
        counts[device] = counts.get(device, WeightCount()) + count
    return counts


@dataclass(frozen=True, slots=True)
class Free:
    """What a device has free, and what bounds it where that is not the device itself."""

    num_bytes: int
    limited_by: str | None = None


def free_memory(device: torch.device) -> Free:
    """What a device has free now; for the CPU, within this process's cgroups."""
    if device.type == "cuda":
        return Free(int(torch.cuda.mem_get_info(device)[0]))
    if device.type == "mps":
        used = torch.mps.current_allocated_memory()
        return Free(int(torch.mps.recommended_max_memory() - used))
    host = host_memory()
    return Free(host.free, host.limited_by)


def free_bytes(device: torch.device) -> int:
    """What a device has free now, bytes."""
    return free_memory(device).num_bytes


def require_memory(
    spec: LoadSpec,
    placement: Placement,
    size: ModelSize,
    bones: Any,  # noqa: ANN401
    free: Callable[[torch.device], Free] = free_memory,
) -> None:
    """Checks that weights, a useful context and the work of loading fit into what is free.

    Raises:
        MemoryShortageError: they do not; says what is needed, what is free, and what would fit.
    """
    held = Held(spec.quantisation, placement.dtype, spec.four_bit)
    for device, need in size.need(held).items():
        available = free(device)
        if need.total <= available.num_bytes:
            continue
        bound = f" within {available.limited_by}" if available.limited_by else ""
        raise MemoryShortageError(
            f"not enough memory on {device}: {gib(need.total)} are needed (weights "
            f"{gib(need.weights)} in {placement.dtype_name}, quantisation {spec.quantisation}; "
            f"{gib(need.context)} for a context of {size.least_tokens} tokens; "
            f"{gib(need.loading)} while loading), and {gib(available.num_bytes)} are free{bound}. "
            f"{_way_out(spec, placement, size, bones, free)}"
        )


def _way_out(
    spec: LoadSpec,
    placement: Placement,
    size: ModelSize,
    bones: Any,  # noqa: ANN401
    free: Callable[[torch.device], Free],
) -> str:
    """Which flags would make it fit."""

    def fits(size: ModelSize, held: Held) -> bool:
        return all(need.total <= free(device).num_bytes for device, need in size.need(held).items())

    asked = Held(spec.quantisation, placement.dtype, spec.four_bit)
    choices = [
        (flag, size, held)
        for flag, held in smaller(spec, placement, bones)
    ]  # fmt: skip
    if placement.device.type == "cuda":
        choices.append(("--device cpu", size.on(torch.device("cpu")), asked))
    fitting = [
        f"{flag} ({gib(sum(need.total for need in other.need(held).values()))})"
        for flag, other, held in choices
        if fits(other, held)
    ]
    if placement.device.type == "cuda":
        fitting += _more_devices(size, asked, placement, free)
    if fitting:
        return f"It fits with {' or '.join(fitting)}"
    tried = ", ".join(flag for flag, _, _ in choices)
    return f"It fits with none of {tried} either; use a larger device" if tried else (
        "It is held as small as can be; use a larger device"
    )  # fmt: skip


def smaller(
    spec: LoadSpec,
    placement: Placement,
    bones: Any,  # noqa: ANN401
) -> list[tuple[str, Held]]:
    """The ways to hold a model in less memory than is asked for, by their flags."""
    asked = Held(spec.quantisation, placement.dtype, spec.four_bit)
    ways = []
    if placement.dtype.itemsize > 2:
        ways.append(("--dtype bfloat16", replace(asked, dtype=torch.bfloat16)))
    if spec.quantisation is Quantisation.NONE and not spec.merge_lora:
        ways.append(("--load-8bit", replace(asked, quantisation=Quantisation.INT8)))
    if spec.quantisation is not Quantisation.NF4 and not spec.merge_lora:
        try:
            require_widths(bones, replace(spec, quantisation=Quantisation.NF4), placement.device)
        except QuantisationError:
            return ways
        ways.append(("--load-4bit", replace(asked, quantisation=Quantisation.NF4)))
    return ways


def _more_devices(
    size: ModelSize,
    asked: Held,
    placement: Placement,
    free: Callable[[torch.device], Free],
) -> list[str]:
    """Layouts over other devices too that would have room."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    needed = sum(need.total for need in size.need(asked).values())
    on_gpus = sum(free(gpu).num_bytes for gpu in gpus)
    if len(gpus) > len(placement.devices) and needed <= on_gpus:
        return [f"--device-map auto, over {len(gpus)} GPUs"]
    on_cpu = free(torch.device("cpu")).num_bytes
    if asked.quantisation is Quantisation.NONE and needed <= on_gpus + on_cpu:
        rest = -(-(needed - on_gpus) // _GIB) + 1
        budgets = ",".join(f"{gpu.index}={free(gpu).num_bytes // _GIB}GiB" for gpu in gpus)
        return [f"--max-memory {budgets},cpu={rest}GiB, slowly, with layers on the CPU"]
    return []


def gib(num_bytes: int) -> str:
    """A size as people read it."""
    return (
        f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"
    )
