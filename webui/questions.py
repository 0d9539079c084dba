"""From what the composer and the settings hold to a turn that can be asked."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from webui.answer import Answer
from webui.conversation import MAX_TURNS, Conversation, Turn
from webui.sampling import Overrides, Sampling
from webui.uploads import UploadLimits, check_images

_Settings = TypeVar("_Settings", Sampling, Overrides)


class RefusedError(Exception):
    """A question cannot be asked as it is; the message says why and what to do."""


async def read_question(
    composed: Mapping[str, Any] | None,
    conversation: Conversation,
    limits: UploadLimits,
    *,
    problem: str | None = None,
) -> Turn:
    """The next turn of a conversation, with an answer to come for each visible column.

    Args:
        composed: the composer's ``text`` and ``files``.
        conversation: whose columns are asked; it is not changed.
        limits: of the files.
        problem: why the controller could not be asked for models, if it could not.

    Raises:
        RefusedError: there is no question, or nobody to ask.
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
    answers = new_answers(conversation)
    if not answers:
        raise RefusedError(problem or "No column has a model: choose one, or start a worker.")
    images = await asyncio.to_thread(check_images, files, limits)
    return Turn(text=text, images=images, answers=answers)


def new_answers(conversation: Conversation) -> dict[int, Answer]:
    """An answer to come for each visible column that has a model, by lane."""
    answers = {}
    common = _drawn_seed()
    for lane in conversation.visible:
        column = conversation.columns[lane]
        if column.model is not None:
            sampling = column.overrides.over(conversation.sampling)
            seed = common if conversation.is_same_seed else _drawn_seed()
            answers[lane] = new_answer(column.model, _seeded(sampling, seed))
    return answers


def new_answer(model: str, sampling: Sampling) -> Answer:
    """An answer to come, asked for now."""
    return Answer(model=model, asked_at=time.monotonic(), sampling=sampling)


def another_answer(conversation: Conversation, lane: int) -> Answer:
    """A further attempt at the last turn, by the model and the settings that the column has now.

    Raises:
        RefusedError: the column has no model.
    """
    column = conversation.columns[lane]
    if column.model is None:
        raise RefusedError("This column has no model: choose one.")
    sampling = _seeded(column.overrides.over(conversation.sampling), _drawn_seed())
    answer = new_answer(column.model, sampling)
    before = conversation.turns[-1].answers.get(lane)
    answer.attempt = 0 if before is None else before.attempt + 1
    return answer


def read_sampling(values: Sequence[object]) -> Sampling:
    """The chat's settings, checked.

    Args:
        values: of the panel, in the order of `Sampling`'s fields; empty ones are the defaults,
            but for the limit of tokens, where empty is no limit.

    Raises:
        RefusedError: one is wrong; the message names it.
    """
    given = _given(values)
    return _checked(Sampling, {"max_tokens": None} | given)


def read_overrides(values: Sequence[object]) -> Overrides:
    """A column's own settings, checked.

    Args:
        values: of the panel, in the order of `Overrides`' fields; empty ones are the chat's.

    Raises:
        RefusedError: one is wrong; the message names it.
    """
    return _checked(Overrides, _given(values))


def _given(values: Sequence[object]) -> dict[str, object]:
    fields = dict(zip(Sampling.model_fields, values, strict=True))
    return {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }


def _checked(kind: type[_Settings], fields: Mapping[str, object]) -> _Settings:
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = str(first["loc"][0]).replace("_", " ")
        raise RefusedError(f"Settings, {name}: {first['msg']}, not {first['input']!r}.") from exc


def _drawn_seed() -> int:
    return secrets.randbelow(2**31)


def _seeded(sampling: Sampling, seed: int) -> Sampling:
    """With a seed, so that what is drawn can be drawn again; greedy decoding draws nothing."""
    if sampling.seed is not None or sampling.temperature == 0:
        return sampling
    return sampling.model_copy(update={"seed": seed})
