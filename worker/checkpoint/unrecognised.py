"""Why a folder is no checkpoint that loads: what it holds, and what the nearest thing to it is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

from worker.checkpoint import llava, native_plan
from worker.checkpoint.errors import (
    ArchitectureError,
    CheckpointError,
    FormatError,
    IncompleteError,
)
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.partial import ADAPTER_FILES
from worker.checkpoint.tower import ENCODERS

_PART = re.compile(
    r"(?P<stem>model|pytorch_model)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?P<end>\w+)"
)
# Names of model types differ in a letter or an ending; anything further is a chance likeness.
_LIKENESS = 0.6


def why_unrecognised(
    folder: CheckpointFolder, known: Collection[str], needs: Sequence[str]
) -> CheckpointError:
    """The error for a folder that no format recognises.

    Args:
        folder: the folder.
        known: model types that load.
        needs: what a folder of each format has.
    """
    if not folder.config and not folder.has("adapter_config.json"):
        return FormatError(
            f"{folder.path} is not a checkpoint: it has neither config.json nor "
            f"adapter_config.json. It holds: {folder.listing()}{_inside(folder)}"
        )
    kind = str(folder.config.get("model_type") or "")
    adapter = folder.first(*ADAPTER_FILES)
    if adapter is not None and not folder.weight_files():
        return IncompleteError(
            f"{folder.path} has {adapter.name} and no adapter_config.json, which says what it is "
            "an adapter for. Copy it from the original download"
        )
    if llava.is_original(folder.config):
        return _without_weights(folder, needs)
    if kind in ENCODERS:
        return ArchitectureError(
            f"{folder.path} is a vision tower ({kind}), which cannot answer by itself; give the "
            "checkpoint that was trained with it, and leave the tower beside that"
        )
    if kind and kind not in known:
        return _unknown_architecture(folder, kind, known)
    if not folder.weight_files():
        return _without_weights(folder, needs)
    return ArchitectureError(
        f"{folder.path}/config.json names no model_type, so that it does not say which model "
        "this is; compare it with the one of the original download"
    )


def _inside(folder: CheckpointFolder) -> str:
    """A hint at checkpoints that lie one step further down, or are of another program."""
    found = sorted(
        entry.parent.name
        for name in ("config.json", "adapter_config.json")
        for entry in folder.path.glob(f"*/{name}")
    )
    if found:
        return f". There is one at {folder.path / found[-1]}"
    if any(folder.path.glob("*.gguf")):
        return ". GGUF files are llama.cpp's: serve them with its llama-server"
    return ""


def _without_weights(folder: CheckpointFolder, needs: Sequence[str]) -> IncompleteError:
    parts = [match for entry in folder.path.iterdir() if (match := _PART.fullmatch(entry.name))]
    if parts:
        first = parts[0]
        count = int(first["count"])
        there = {int(part["number"]) for part in parts}
        index = f"{first['stem']}.{first['end']}.index.json"
        missing = [
            f"{first['stem']}-{number:05}-of-{first['count']}.{first['end']}"
            for number in range(1, count + 1)
            if number not in there
        ]
        return IncompleteError(
            f"{folder.path} has {len(there)} of {count} parts of its weights and no {index}, "
            f"which says what is in them. Missing: {', '.join([*missing, index])}. Download or "
            "copy them again"
        )
    return IncompleteError(
        f"{folder.path} has a config.json and no weights under a name that is known "
        "(model.safetensors, pytorch_model.bin, or an index of parts). It holds: "
        f"{folder.listing()}. What each kind of checkpoint has: {'; '.join(needs)}"
    )


def _unknown_architecture(
    folder: CheckpointFolder, kind: str, known: Collection[str]
) -> ArchitectureError:
    close = difflib.get_close_matches(kind, sorted(known), n=1, cutoff=_LIKENESS)
    hint = f"; the closest known is {close[0]}" if close else ""
    if native_plan.model_code(folder) is not None:
        hint += (
            ". It brings code of its own for it, which runs only with --trust-remote-code; or look "
            "for a conversion to transformers' classes (often named -hf)"
        )
    elif folder.config.get("auto_map"):
        hint += (
            ". It brings code of its own (auto_map), but no model in it that answers: look for a "
            "conversion to transformers' classes (often named -hf)"
        )
    # On use: transformers takes a second, and most folders are recognised.
    from transformers import __version__ as ours  # noqa: PLC0415

    return ArchitectureError(
        f"{folder.path} is of model_type {kind!r}, which transformers {ours} cannot load as a chat "
        f"model{hint}{_made_later(folder, ours)}"
    )


def _made_later(folder: CheckpointFolder, ours: str) -> str:
    """A hint where a checkpoint was saved by a later transformers than the one that is here."""
    saved_by = str(folder.config.get("transformers_version") or "")
    is_later = _release(saved_by) > _release(ours)
    return f". It was saved by transformers {saved_by}: install that or a later one" * is_later


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
