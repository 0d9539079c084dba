"""The first time that a checkpoint's template and processor are tried: what they raise then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.protocol.errors import ParagoneError
from worker.checkpoint.errors import TemplateError


@contextmanager
def first_prompt(path: Path) -> Iterator[None]:
    """Says of a checkpoint what would else be said of a request.

    Args:
        path: the checkpoint's folder.

    Raises:
        TemplateError: template and processor make no prompt of a first question.
    """
    try:
        yield
    except (
        ParagoneError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise TemplateError(
            f"the chat template and the processor of {path} make no prompt of a first question: "
            f"{' '.join(str(error).split())}. Compare chat_template.*, processor_config.json and "
            "preprocessor_config.json with those of the original download, or choose a template "
            "with --chat-template"
        ) from error
