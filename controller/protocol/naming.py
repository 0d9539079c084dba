"""What a model is called in the API where nobody has named it. Pure."""

from __future__ import annotations

import re

_NUMBERED = re.compile(r"checkpoint-\d+")


def name_of_path(path: str) -> str:
    """LLaVA's rule: the last component of a checkpoint's folder or hub name.

    ``checkpoint-N`` says nothing alone, so its parent's name goes before it.
    """
    parts = [part for part in re.split(r"[\\/]", path) if part not in {"", "."}]
    if not parts:
        return path
    if _NUMBERED.fullmatch(parts[-1]) and len(parts) > 1:
        return f"{parts[-2]}_{parts[-1]}"
    return parts[-1]
