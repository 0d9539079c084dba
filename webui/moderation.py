"""The operator's own say on questions: a function of theirs, named by ``--moderate``."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from webui.conversation import Turn
from webui.questions import RefusedError

_log = logging.getLogger(__name__)

# Given the question and its images' files; returns why it is refused, or None. May be async.
Hook = Callable[[str, Sequence[Path]], str | Awaitable[str | None] | None]
Moderate = Callable[[Turn], Awaitable[None]]


class ModerationError(Exception):
    """The operator's function cannot be found; the message says why."""


async def allow_all(_turn: Turn) -> None:
    """Where nothing is moderated."""


def moderator(name: str | None) -> Moderate:
    """Checks turns by the function of this name, as ``package.module:function``.

    A check raises `RefusedError` with the function's reason; where the function itself fails the
    question is refused too, since nobody has said that it may be asked.

    Raises:
        ModerationError: there is no such function.
    """
    if name is None:
        return allow_all
    module_name, _, function_name = name.partition(":")
    try:
        hook: Hook = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ModerationError(
            f"--moderate {name}: {exc}; expected package.module:function, importable from here"
        ) from exc

    async def check(turn: Turn) -> None:
        try:
            found = hook(turn.text, [image.path for image in turn.images])
            reason = await found if inspect.isawaitable(found) else found
        except Exception as exc:
            _log.exception("--moderate %s failed", name)
            raise RefusedError(
                "The check of questions failed on this server; its log has the cause. Try again."
            ) from exc
        if reason is not None:
            raise RefusedError(reason)

    return check
