"""Where Gradio serves its KaTeX, which typesets the formulas of the other views too."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from webui.toolkit import gr

_log = logging.getLogger(__name__)

_SCOPE = re.compile(r"\.([\w-]+) \.katex\{")
_FILES = Path(gr.__file__).parent / "templates" / "frontend" / "assets"


@dataclass(frozen=True, slots=True)
class Katex:
    """Addresses, relative to the page's root."""

    script: str  # a module whose default export is KaTeX
    style: str
    scope: str  # the class of the element within which the style holds; empty: everywhere


def find_katex(files: Path = _FILES) -> Katex | None:
    """Gradio's KaTeX, whose file names change with each of its versions; None if it is not there.

    Args:
        files: the folder of Gradio's frontend.
    """
    script = next(iter(sorted(files.glob("katex-*.js"))), None)
    style = next(iter(sorted(files.glob("katex-*.css"))), None)
    if script is None or style is None:
        _log.warning(
            "this version of Gradio has no KaTeX at %s: battles show formulas as their TeX", files
        )
        return None
    scope = _SCOPE.search(style.read_text(encoding="utf-8"))
    return Katex(
        f"./assets/{script.name}", f"./assets/{style.name}", "" if scope is None else scope[1]
    )
