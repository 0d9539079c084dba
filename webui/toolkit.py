"""Gradio, imported with its telemetry off; every module of the page takes ``gr`` from here.

Gradio reads these variables while it is imported, so they cannot wait for a composition root.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Gradio sums up its events with pandas after each one, for a monitoring page that we switch off.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**62)


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Keeps Gradio from writing a ``.pyi`` beside its own files for each kind of component.

    It parses its sources for that with each start, a quarter of what importing it takes. It leaves
    out a class of which it finds no file, and asks here for it.
    """
    find = inspect.getfile

    def find_none_of_components(of: Any) -> str:  # noqa: ANN401 - as inspect has it
        if type(of).__name__ == "ComponentMeta":
            raise OSError(f"no stub is wanted of {of}")
        return find(of)

    setattr(inspect, "getfile", find_none_of_components)  # noqa: B010 - checkers see a function
    try:
        yield
    finally:
        setattr(inspect, "getfile", find)  # noqa: B010


with _without_stubs():
    import gradio as gr

__all__ = ["gr"]
