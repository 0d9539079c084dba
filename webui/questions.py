"""From what the composer and the settings panel hold to a turn that can be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from webui.conversation import MAX_TURNS, Answer, Conversation, Turn
from webui.sampling import Sampling
from webui.uploads import UploadLimits, check_images


class RefusedError(Exception):
    """A question cannot be asked as it is; the message says why and what to do."""


async def read_question(
    composed: Mapping[str, Any] | None,
    sampling: Sequence[object],
    conversation: Conversation,
    limits: UploadLimits,
    *,
    problem: str | None = None,
) -> Turn:
    """The next turn of a conversation, with an answer to come for each visible column.

    Args:
        composed: the composer's ``text`` and ``files``.
        sampling: the settings panel's values, in the order of `Sampling`'s fields.
        conversation: whose columns are asked; it is not changed.
        limits: of the files.
        problem: why the controller could not be asked for models, if it could not.

    Raises:
        RefusedError: there is no question, nobody to ask, or a setting is wrong.
        UploadError: a file is no image that models take.
    """
    composed = composed or {}
    text = str(composed.get("text") or "")
    files = [str(path) for path in composed.get("files") or []]
    if not text.strip():
        raise RefusedError("Add a question to the image." if files else "Type a question first.")
    if len(conversation.turns) >= MAX_TURNS:
        raise RefusedError(
            f"This chat has {MAX_TURNS} turns, the most there may be: press New chat."
        )
    visible = enumerate(conversation.columns[: conversation.num_columns])
    models = {column: name for column, name in visible if name is not None}
    if not models:
        raise RefusedError(problem or "No column has a model: choose one, or start a worker.")
    checked_sampling = read_sampling(sampling)
    images = await asyncio.to_thread(check_images, files, limits)
    now = time.monotonic()
    answers = {column: Answer(model=name, asked_at=now) for column, name in models.items()}
    return Turn(text=text, images=images, sampling=checked_sampling, answers=answers)


def read_sampling(values: Sequence[object]) -> Sampling:
    """The settings panel's values, checked.

    Raises:
        RefusedError: one is wrong; the message names it.
    """
    fields = dict(zip(Sampling.model_fields, values, strict=True))
    try:
        return Sampling.model_validate(fields)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = str(first["loc"][0]).replace("_", " ")
        raise RefusedError(f"Settings, {name}: {first['msg']}, not {first['input']!r}.") from exc
