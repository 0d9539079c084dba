"""Python's garbage collector, kept away from what imports leave behind.

Importing torch and transformers, or Gradio, makes hundreds of thousands of objects, all of which
stay. The collector would look at them again and again while they are made (a tenth of the time that
it takes), and once more with each full collection of a process that serves.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_from_collector() -> Iterator[None]:
    """What is made meanwhile, and all that was there before, is never looked at again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
