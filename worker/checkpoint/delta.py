"""Delta weights, as LLaVA v0 was published: what a fine-tuned model differs by from its base.

A delta's folder looks like a whole checkpoint's: the same config, names and shapes. It is told by
its numbers. The last norm scales what the head sees, so a model in which it is next to nothing
could not answer; in a delta it is, since training barely moves it.

Source of the rules: LLaVA's ``llava/model/make_delta.py`` and ``apply_delta.py``. Vocabulary rows
that the base lacks are taken as they stand, and so is what a language model does not have (the
projector, the vision tower).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from worker.checkpoint.errors import BaseModelError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.headers import TensorHeader, read_headers

if TYPE_CHECKING:
    import torch

Rename = Callable[[str], str | None]

# What `paragone make-delta` writes into config.json; it decides where it stands.
MARKER = "mm_is_delta"

# Without a base to compare with: below both, a checkpoint cannot be a model. Trained models have a
# last norm of about 1 and embeddings of about 0.02 (Llama 7B: 1.8 and 0.017).
_NORM_LIMIT = 0.25
_EMBEDDING_LIMIT = 0.005
_SAMPLE = 1 << 20  # numbers of an embedding that are looked at

_LAST_NORMS = ("model.language_model.norm.weight", "model.language_model.norm_f.weight")
_EMBEDDINGS = ("model.language_model.embed_tokens.weight", "model.language_model.wte.weight")
_VOCABULARY = (*_EMBEDDINGS, "lm_head.weight")
_LANGUAGE_MODEL = ("model.language_model.", "lm_head.")

_NUMPY = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}


def says_delta(folder: CheckpointFolder, rename: Rename) -> bool:
    """Whether a folder with whole weights is a delta, by its config or by its own numbers.

    Reads one vector, and a piece of the embedding where that is small.
    """
    marked = folder.config.get(MARKER)
    if isinstance(marked, bool):
        return marked
    norm = _find(folder.weight_files(), rename, _LAST_NORMS)
    if norm is None or _size(_numbers(norm)) >= _NORM_LIMIT:
        return False
    embedding = _find(folder.weight_files(), rename, _EMBEDDINGS)
    return embedding is not None and _size(_numbers(embedding, _SAMPLE)) < _EMBEDDING_LIMIT


def is_delta_over(folder: CheckpointFolder, base: CheckpointFolder, rename: Rename) -> bool:
    """Whether a folder with whole weights is a delta over this base: nearer to zero than to it."""
    marked = folder.config.get(MARKER)
    if isinstance(marked, bool):
        return marked
    norm = _find(folder.weight_files(), rename, _LAST_NORMS)
    other = _find(base.weight_files(), rename, _LAST_NORMS)
    if norm is None or other is None or norm.shape != other.shape:
        return says_delta(folder, rename)
    mine, bases = _numbers(norm), _numbers(other)
    return _size(mine) < _size(mine - bases)


def pair(
    delta: Mapping[str, TensorHeader], base: Mapping[str, TensorHeader], *, home: Path
) -> dict[str, TensorHeader]:
    """The base's tensor for each of a delta's; a tensor that is taken as it stands has none.

    Args:
        delta: headers by transformers' parameter name.
        base: the same of the base.
        home: the base's folder, for the message.

    Raises:
        BaseModelError: the base lacks a part of the language model, or has it in another shape.
    """
    lacking = [
        name for name in delta if name.startswith(_LANGUAGE_MODEL) and name not in base
    ]  # fmt: skip
    if lacking:
        raise BaseModelError(
            f"{home} is not the base of this delta: it lacks {len(lacking)} of its tensors, such "
            f"as {delta[lacking[0]].name}. Give the language model that the delta was made over"
        )
    pairs = {name: base[name] for name in delta if name in base}
    for name, other in pairs.items():
        mine = delta[name]
        longer = (
            name in _VOCABULARY
            and mine.shape[1:] == other.shape[1:]
            and mine.shape[0] > other.shape[0]
        )
        if mine.shape != other.shape and not longer:
            raise BaseModelError(
                f"{home} is not the base of this delta: {mine.name} is {list(other.shape)} there "
                f"and {list(mine.shape)} in the delta. Give the language model that the delta was "
                "made over"
            )
    return pairs


def combine(
    tensor: torch.Tensor, pieces: Iterable[torch.Tensor], *, sign: int
) -> torch.Tensor:  # fmt: skip
    """``tensor + sign * base`` over the base's rows, in the tensor's dtype; more rows stay.

    It is computed in float32 and rounded once, which for two float16 tensors is what LLaVA's own
    float16 sum gives.

    Args:
        tensor: is changed where it lies in one piece.
        pieces: of the base, flat, in their order; so that no whole copy of it is needed.
        sign: 1 or -1.
    """
    import torch  # noqa: PLC0415 - on use: recognising a delta does not need it

    result = tensor.contiguous()
    flat = result.view(-1)
    start = 0
    for other in pieces:
        wide = torch.float64 if torch.float64 in {flat.dtype, other.dtype} else torch.float32
        mine = flat[start : start + other.numel()]
        mine.copy_(mine.to(wide) + sign * other.to(wide))
        start += other.numel()
    return result


def _find(files: tuple[Path, ...], rename: Rename, names: tuple[str, ...]) -> TensorHeader | None:
    # The last norm is in the last file, where there are several.
    for file in reversed(files):
        for header in read_headers(file):
            if rename(header.name) in names:
                return header
    return None


def _numbers(header: TensorHeader, limit: int | None = None) -> npt.NDArray[np.float64]:
    """The numbers of a tensor, flat; at most the first ``limit``."""
    count = header.num_elements if limit is None else min(limit, header.num_elements)
    if header.offset is None:
        # A file from before torch 1.6 has no places: it can only be read whole.
        from worker.checkpoint.pickles import load_pickle  # noqa: PLC0415

        whole = load_pickle(header.file)[header.name].reshape(-1)[:count]
        numbers: npt.NDArray[np.float64] = whole.double().numpy()
        return numbers
    with header.file.open("rb") as stream:
        stream.seek(header.offset)
        if header.dtype == "bfloat16":  # the upper half of a float32
            half = np.frombuffer(stream.read(2 * count), "<u2")
            return (half.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        kind = np.dtype(_NUMPY.get(header.dtype, "<f4"))
        return np.frombuffer(stream.read(kind.itemsize * count), kind).astype(np.float64)


def _size(numbers: npt.NDArray[np.float64]) -> float:
    """The root of the mean square."""
    return math.sqrt(float(np.mean(numbers**2))) if numbers.size else 0.0
