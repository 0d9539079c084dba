"""Memory sizes and device maps as they are written on a command line. Pure; no torch.

The forms are transformers' and accelerate's: ``--max-memory 0=20GiB,cpu=60GiB`` is their
``max_memory={0: "20GiB", "cpu": "60GiB"}``, and ``--device-map`` takes their strategies, a device,
or a JSON object from modules to devices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

# How a model is laid out over several devices; accelerate's names.
STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?|\d+")

DeviceMap = str | Mapping[str, str]
MaxMemory = Mapping[str, int]


def parse_size(text: str) -> int:
    """Bytes of a size: "20GiB" and "20G" are binary, "20GB" decimal, as accelerate has it.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; sizes are written 20GiB, 500MB or in bytes")
    number, unit, binary = match[1], (match[2] or "").upper(), bool(match[3])
    is_decimal = unit and not binary and text.strip().upper().endswith("B")
    return int(float(number) * (1000 if is_decimal else 1024) ** _POWERS[unit])


def parse_max_memory(text: str) -> dict[str, int]:
    """``0=20GiB,1=20GiB,cpu=60GiB`` as bytes a device, GPUs as "cuda:0".

    Raises:
        ValueError: it is not of that form.
    """
    budgets: dict[str, int] = {}
    for piece in filter(None, (part.strip() for part in text.split(","))):
        device, separator, size = piece.partition("=")
        if not separator:
            raise ValueError(f"{piece!r} is not DEVICE=SIZE, as in 0=20GiB,cpu=60GiB")
        name = device_name(device)
        if name in budgets:
            raise ValueError(f"{device.strip()} is named twice")
        budgets[name] = parse_size(size)
    if not budgets:
        raise ValueError("it names no device; write it as 0=20GiB,cpu=60GiB")
    return budgets


def parse_device_map(text: str) -> DeviceMap:
    """A strategy, a device, or a JSON object from a module's name to its device.

    Raises:
        ValueError: it is none of them.
    """
    text = text.strip()
    if not text.startswith("{"):
        return text if text in STRATEGIES else device_name(text)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not a JSON object: {error}") from error
    if not content:
        raise ValueError('it places nothing; "" is the name of the whole model')
    return {str(module): device_name(str(device)) for module, device in content.items()}


def device_name(text: str) -> str:
    """A device as torch names it; a number alone is a GPU.

    Raises:
        ValueError: it is no device.
    """
    name = text.strip().lower()
    if name == "disk":
        raise ValueError(
            "weights on the disk would be read again for each token; use cpu, or --load-4bit"
        )
    if _DEVICE.fullmatch(name) is None:
        raise ValueError(
            f"{text.strip()!r} is neither a device (0, cuda:0, cpu, mps) nor one of "
            f"{', '.join(STRATEGIES)}"
        )
    if name == "cuda":
        return "cuda:0"
    return f"cuda:{name}" if name.isdigit() else name
