"""Keeps transformers' own progress bars off the terminal: progress is reported, not drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """While transformers loads."""
    from transformers.utils import logging  # noqa: PLC0415 - a second; on use

    def silent(factory: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401, ARG001
        return logging.EmptyTqdm(*args, **kwargs)

    previous = logging.set_tqdm_hook(silent)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
