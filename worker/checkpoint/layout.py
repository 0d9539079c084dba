"""Which part of a model goes to which device, where one device is not enough or not wanted.

The strategies are accelerate's (`infer_auto_device_map`), with two differences. Weights never go
to the disk, and to main memory only where ``--max-memory`` names the CPU: both make every token
many times slower, which should be asked for.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from controller.protocol.fleet import Quantisation
from worker.checkpoint.budgets import STRATEGIES
from worker.checkpoint.errors import (
    AdapterError,
    CheckpointError,
    MemoryShortageError,
    QuantisationError,
)
from worker.checkpoint.memory import Held, count_weights, free_bytes, gib
from worker.checkpoint.placement import Placement, require_device
from worker.checkpoint.plan import LoadPlan
from worker.checkpoint.quantise import linear_layers
from worker.checkpoint.spec import LoadSpec

_log = logging.getLogger(__name__)

# Of what a GPU has free, for weights; the rest is for keys, values and activations.
_SHARE = 0.9


def lay_out(spec: LoadSpec, plan: LoadPlan, placement: Placement, bones: Any) -> Placement:  # noqa: ANN401
    """The placement with its device map, where the model is to go to several devices.

    Args:
        spec: what was asked for.
        plan: of the checkpoint.
        placement: the device that it would go to as a whole, and its dtype.
        bones: the model's skeleton.

    Raises:
        CheckpointError: a device is not there, or a module of the map is not.
        MemoryShortageError: it does not fit into what the devices may hold.
        QuantisationError: quantised layers would go to the CPU beside a GPU.
        AdapterError: the same, of an adapter's layers.
    """
    if isinstance(spec.device_map, Mapping):
        laid_out = _as_given(spec.device_map, placement, bones)
    else:
        strategy = _strategy(spec, placement, bones)
        if strategy is None:
            return placement
        laid_out = _by_strategy(strategy, spec, placement, bones)
    _require_no_mix(spec, plan, laid_out)
    return laid_out


def _strategy(spec: LoadSpec, placement: Placement, bones: Any) -> str | None:  # noqa: ANN401
    if isinstance(spec.device_map, str):
        return spec.device_map if spec.device_map in STRATEGIES else None
    if spec.max_memory is not None or spec.num_gpus is not None:
        return "auto"
    if spec.device not in {"auto", "cuda"} or placement.device.type != "cuda":
        return None
    gpus = torch.cuda.device_count()
    needed = _weight_bytes(spec, placement, bones)[placement.device]
    if gpus == 1 or needed <= free_bytes(placement.device) * _SHARE:
        return None
    _log.info(
        "its weights take %s, more than %s has free; it is laid out over %d GPUs, as with "
        "--device-map auto",
        gib(needed),
        placement.device,
        gpus,
    )
    return "auto"


def _by_strategy(
    strategy: str,
    spec: LoadSpec,
    placement: Placement,
    bones: Any,  # noqa: ANN401
) -> Placement:
    # On use: accelerate takes a noticeable time, and most models go to one device.
    from accelerate import infer_auto_device_map  # noqa: PLC0415
    from accelerate.utils import get_balanced_memory  # noqa: PLC0415

    budgets = {_accelerates(device): size for device, size in _budgets(spec).items()}
    sizes = {"dtype": placement.dtype, "special_dtypes": _special_dtypes(spec, bones)}
    unsplit = list(bones._no_split_modules or ())  # noqa: SLF001 - accelerate's own question
    if strategy != "sequential" and any(device != "cpu" for device in budgets):
        bounds = get_balanced_memory(
            bones,
            dict(budgets),
            no_split_module_classes=unsplit,
            low_zero=strategy == "balanced_low_0",
            **sizes,
        )
    else:
        bounds = dict(budgets)
    found = infer_auto_device_map(bones, bounds, no_split_module_classes=unsplit, **sizes)
    homeless = [module for module, device in found.items() if device == "disk"]
    if homeless:
        raise MemoryShortageError(_overflow(homeless, spec, placement, bones, budgets))
    return _with_map(
        {module: _torchs(device) for module, device in found.items()}, placement, bones
    )


def _budgets(spec: LoadSpec) -> dict[torch.device, int]:
    """What the weights may take on each device, bytes; GPUs first."""
    if spec.max_memory is not None:
        given = {torch.device(name): size for name, size in spec.max_memory.items()}
        for device in given:
            require_device(device)
        return dict(sorted(given.items(), key=lambda pair: (pair[0].type == "cpu", str(pair[0]))))
    count = torch.cuda.device_count() if spec.num_gpus is None else spec.num_gpus
    gpus = [torch.device("cuda", index) for index in range(count)]
    for gpu in gpus:
        require_device(gpu)
    devices = gpus or [torch.device("cpu")]
    return {device: int(free_bytes(device) * _SHARE) for device in devices}


def _overflow(
    homeless: list[str],
    spec: LoadSpec,
    placement: Placement,
    bones: Any,  # noqa: ANN401
    budgets: Mapping[int | str, int],
) -> str:
    needed = sum(_weight_bytes(spec, placement, bones).values())
    first = f"{homeless[0]} would be the first on the disk" if homeless[0] else "none of it would"
    allowed = ", ".join(f"{device}={gib(size)}" for device, size in budgets.items())
    ways = ["allow more in --max-memory"]
    if spec.quantisation is not Quantisation.NF4 and not spec.merge_lora:
        ways.append("hold it smaller with --load-4bit")
    if "cpu" not in budgets and spec.quantisation is Quantisation.NONE:
        ways.append("let the CPU hold layers, slowly, with cpu=... in --max-memory")
    return (
        f"not enough memory: the weights take {gib(needed)}, and with room to work they do not fit "
        f"into what may be used ({allowed}); {first}. Either {', or '.join(ways)}"
    )


def _as_given(given: Mapping[str, str], placement: Placement, bones: Any) -> Placement:  # noqa: ANN401
    modules = {name for name, _ in bones.named_modules()}
    device_map = {}
    for name, device in given.items():
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=1)
            hint = f"; the closest is {close[0]}" if close else ""
            raise CheckpointError(
                f"--device-map names {name!r}, which is no module of this model{hint}"
            )
        device_map[name] = torch.device(device)
        require_device(device_map[name])
    laid_out = _with_map(device_map, placement, bones)
    for name, _ in bones.named_parameters():
        if not any(_is_below(name, module) for module in device_map):
            raise CheckpointError(
                f"--device-map says nothing of {name}; name its module, or give the rest a "
                'device with "": 0'
            )
    return laid_out


def _is_below(name: str, module: str) -> bool:
    return not module or name.startswith(f"{module}.")


def _with_map(
    device_map: Mapping[str, torch.device],
    placement: Placement,
    bones: Any,  # noqa: ANN401
) -> Placement:
    laid_out = replace(placement, device_map=device_map)
    embeddings = bones.get_input_embeddings()
    name = next(name for name, module in bones.named_modules() if module is embeddings)
    return replace(laid_out, device=laid_out.device_of(name))


def _require_no_mix(spec: LoadSpec, plan: LoadPlan, laid_out: Placement) -> None:
    """Refuses what cannot be computed while a part of the model waits in main memory."""
    if {device.type for device in laid_out.devices} <= {"cpu"} or not any(
        device.type == "cpu" for device in laid_out.devices
    ):
        return
    offloaded = next(name for name, at in laid_out.device_map.items() if at.type == "cpu")
    if spec.quantisation is not Quantisation.NONE:
        raise QuantisationError(
            f"bitsandbytes cannot keep {spec.quantisation} layers in main memory beside a GPU, and "
            f"{offloaded or 'the rest'} would go there. Allow the GPUs more in --max-memory, or "
            "load in full precision"
        )
    if plan.adapter is not None and not spec.merge_lora:
        raise AdapterError(
            f"an adapter cannot be kept apart from layers that wait in main memory, and "
            f"{offloaded or 'the rest'} would. Allow the GPUs more in --max-memory, or use "
            "--load-4bit"
        )


def _weight_bytes(spec: LoadSpec, placement: Placement, bones: Any) -> dict[torch.device, int]:  # noqa: ANN401
    held = Held(spec.quantisation, placement.dtype, spec.four_bit)
    counts = count_weights(bones, placement)
    return {device: count.num_bytes(held) for device, count in counts.items()}


def _special_dtypes(spec: LoadSpec, bones: Any) -> dict[str, Any]:  # noqa: ANN401
    """What accelerate is to take quantised weights for."""
    from accelerate.utils import CustomDtype  # noqa: PLC0415 - with the rest of accelerate

    if spec.quantisation is Quantisation.NONE:
        return {}
    kind = torch.int8 if spec.quantisation is Quantisation.INT8 else CustomDtype.INT4
    return {f"{name}.weight": kind for name, _ in linear_layers(bones)}


def _accelerates(device: torch.device) -> int | str:
    return device.index if device.type == "cuda" else device.type


def _torchs(device: int | str) -> torch.device:
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
