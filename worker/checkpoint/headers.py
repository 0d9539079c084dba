"""Names, shapes and sizes of the tensors in weight files, without reading the tensors."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.checkpoint.errors import FormatError, IncompleteError
from worker.checkpoint.folder import require_fetched

_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit

# safetensors' names of dtypes: torch's name, bytes an element
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
}


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor of a file."""

    name: str  # as the file says
    shape: tuple[int, ...]
    dtype: str  # torch's name, e.g. "float16"
    num_bytes: int
    file: Path
    offset: int | None  # of its first byte in the file; None where it does not lie in one piece

    @property
    def num_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_headers(file: Path) -> list[TensorHeader]:
    """The tensors of one weight file, safetensors or pickle.

    Raises:
        IncompleteError: the file is cut short or damaged, or stands for one that was not fetched.
        FormatError: it has a dtype that is not known.
        UnsafeFileError: the pickle holds more than tensors.
    """
    require_fetched(file)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    # Pickles need torch; imported on use, so that looking at safetensors stays fast.
    from worker.checkpoint.pickles import read_pickle_headers  # noqa: PLC0415

    return read_pickle_headers(file)


def _read_safetensors(file: Path) -> list[TensorHeader]:
    """Source of the format: safetensors' README, section "Format"."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise IncompleteError(f"{file} is cut short: {size} bytes; download or copy it again")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES:
            raise IncompleteError(
                f"{file} is damaged, or no safetensors file: its header claims {length} bytes; "
                "download or copy it again"
            )
        raw = stream.read(length)
    try:
        headers = [
            _header(file, name, entry, data_start=8 + length)
            for name, entry in json.loads(raw).items()
            if name != "__metadata__"
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IncompleteError(
            f"{file} is damaged or cut short: its header does not parse; download or copy it again"
        ) from error
    expected = max((h.offset + h.num_bytes for h in headers if h.offset), default=8 + length)
    if size < expected:
        raise IncompleteError(
            f"{file} is cut short: {size} of {expected} bytes; download or copy it again"
        )
    return headers


def _header(file: Path, name: str, entry: Any, *, data_start: int) -> TensorHeader:  # noqa: ANN401
    begin, stop = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise FormatError(
            f"{file} holds {name} as {entry['dtype']}, which cannot be read here; known are "
            f"{', '.join(DTYPES)}"
        )
    dtype, item_bytes = DTYPES[entry["dtype"]]
    if begin < 0 or math.prod(entry["shape"]) * item_bytes != stop - begin:
        raise IncompleteError(
            f"{file} is damaged: {name} is said to have {stop - begin} bytes, which is not "
            f"{entry['shape']} of {entry['dtype']}; download or copy it again"
        )
    return TensorHeader(
        name, tuple(entry["shape"]), dtype, stop - begin, file, data_start + begin
    )  # fmt: skip
