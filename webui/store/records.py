"""Conversations as rows, and rows as conversations. No rule of the page is here."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.protocol.chat import FinishReason, Metrics, Usage
from controller.protocol.fleet import ModelCard
from webui.answer import Answer, AnswerState, AskedModel, Feedback, Rating
from webui.conversation import MAX_COLUMNS, Column, Conversation, Kind, Turn, UploadedImage
from webui.sampling import Overrides, Sampling
from webui.store.images import ImageFolder

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written of a conversation."""

    conversation: Row
    turns: list[Row]
    images: list[Row]
    answers: list[Row]


def changes_of(conversation: Conversation, *, server: str) -> Changes:
    """The rows that differ from what was written last: `mark_written` notes that they do not."""
    identity = conversation.id
    new_turns = list(enumerate(conversation.turns))[conversation.saved_turns :]
    return Changes(
        conversation=(
            identity,
            conversation.owner,
            conversation.kind,
            conversation.title,
            conversation.is_pinned,
            conversation.branched_from,
            conversation.created_at,
            time.time(),
            json.dumps(_arrangement(conversation)),
        ),
        turns=[(identity, number, turn.text, turn.created_at) for number, turn in new_turns],
        images=[
            (
                identity,
                number,
                position,
                image.digest,
                image.media_type,
                image.width,
                image.height,
                image.num_bytes,
                image.name,
            )
            for number, turn in new_turns
            for position, image in enumerate(turn.images)
        ],
        answers=[
            _answer_row(identity, number, lane, answer, server)
            for number, turn in enumerate(conversation.turns)
            for lane, answer in turn.answers.items()
            if answer.saved_version != answer.version
        ],
    )


def mark_written(conversation: Conversation, changes: Changes) -> None:
    """Notes that rows made by `changes_of` were about to be written; call it right after."""
    conversation.saved_turns += len(changes.turns)
    for turn in conversation.turns:
        for answer in turn.answers.values():
            answer.saved_version = answer.version


def mark_unwritten(conversation: Conversation) -> None:
    """Notes that writing failed: the next time everything is written."""
    conversation.saved_turns = 0
    for turn in conversation.turns:
        for answer in turn.answers.values():
            answer.saved_version = -1


def write(connection: sqlite3.Connection, changes: Changes) -> None:
    """Writes the rows."""
    connection.execute(
        "INSERT INTO conversation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET "
        "owner = excluded.owner, title = excluded.title, is_pinned = excluded.is_pinned, "
        "used_at = excluded.used_at, arrangement = excluded.arrangement",
        changes.conversation,
    )
    connection.executemany("INSERT OR IGNORE INTO turn VALUES (?, ?, ?, ?)", changes.turns)
    connection.executemany(
        "INSERT OR IGNORE INTO turn_image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", changes.images
    )
    connection.executemany(
        "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET "
        "state = excluded.state, text = excluded.text, finish_reason = excluded.finish_reason, "
        "error = excluded.error, error_code = excluded.error_code, "
        "worker_id = excluded.worker_id, server = excluded.server, "
        "sampling = excluded.sampling, request = excluded.request, asked = excluded.asked, "
        "figures = excluded.figures",
        changes.answers,
    )


def read(
    connection: sqlite3.Connection, conversation_id: str, images: ImageFolder
) -> Conversation | None:
    """The conversation of this id as it was written last; None if there is none."""
    row = connection.execute(
        "SELECT owner, kind, title, is_pinned, branched_from, created_at, arrangement "
        "FROM conversation WHERE id = ?",
        (conversation_id,),
    ).fetchone()
    if row is None:
        return None
    owner, kind, title, is_pinned, branched_from, created_at, arrangement = row
    conversation = Conversation(
        id=conversation_id,
        owner=owner,
        kind=Kind(kind),
        title=title,
        is_pinned=bool(is_pinned),
        branched_from=branched_from,
        created_at=created_at,
        **_arranged(json.loads(arrangement)),
    )
    conversation.turns = _turns(connection, conversation_id, images)
    conversation.saved_turns = len(conversation.turns)
    _add_answers(connection, conversation)
    return conversation


def _arrangement(conversation: Conversation) -> dict[str, Any]:
    return {
        "columns": [
            {"model": column.model, "overrides": column.overrides.model_dump(exclude_none=True)}
            for column in conversation.columns
        ],
        "order": conversation.order,
        "num_columns": conversation.num_columns,
        "is_arranged": conversation.is_arranged,
        "sampling": conversation.sampling.model_dump(),
        "is_same_seed": conversation.is_same_seed,
        "is_sequential": conversation.is_sequential,
        "reference": conversation.reference,
    }


def _arranged(content: Mapping[str, Any]) -> dict[str, Any]:
    columns = [
        Column(column["model"], Overrides.model_validate(column["overrides"]))
        for column in content["columns"]
    ]
    # A later version may show more columns than the one that wrote this.
    columns += [Column() for _ in range(MAX_COLUMNS - len(columns))]
    order = content["order"]
    return {
        **content,
        "columns": columns,
        "order": [*order, *(lane for lane in range(len(columns)) if lane not in order)],
        "sampling": Sampling.model_validate(content["sampling"]),
    }


def _turns(connection: sqlite3.Connection, identity: str, images: ImageFolder) -> list[Turn]:
    turns = [
        Turn(text=text, created_at=created_at)
        for text, created_at in connection.execute(
            "SELECT text, created_at FROM turn WHERE conversation_id = ? ORDER BY number",
            (identity,),
        )
    ]
    rows = connection.execute(
        "SELECT turn, digest, media_type, width, height, num_bytes, name FROM turn_image "
        "WHERE conversation_id = ? ORDER BY turn, position",
        (identity,),
    )
    for number, digest, media_type, width, height, num_bytes, name in rows:
        path = images.path(digest, media_type)
        image = UploadedImage(path, media_type, width, height, num_bytes, digest, name)
        turns[number].images += (image,)
    return turns


def _answer_row(identity: str, turn: int, lane: int, answer: Answer, server: str) -> Row:
    return (
        answer.id,
        identity,
        turn,
        lane,
        answer.attempt,
        answer.model,
        answer.state,
        answer.text,
        answer.finish_reason,
        answer.error,
        answer.error_code,
        answer.worker_id,
        server,
        answer.created_at,
        answer.sampling.model_dump_json(),
        None if answer.request is None else json.dumps(answer.request),
        None if answer.asked is None else json.dumps(_asked(answer.asked)),
        json.dumps(_figures(answer)),
    )


def _asked(asked: AskedModel) -> dict[str, Any]:
    return {"card": asked.card.model_dump(mode="json"), "memory_bytes": asked.memory_bytes}


def _figures(answer: Answer) -> dict[str, Any]:
    def since_asked(moment: float | None) -> float | None:
        return None if moment is None else moment - answer.asked_at

    return {
        "usage": answer.usage and answer.usage.model_dump(mode="json"),
        "metrics": answer.metrics and answer.metrics.model_dump(mode="json"),
        "first_text_seconds": since_asked(answer.first_text_at),  # after it was asked
        "last_text_seconds": since_asked(answer.last_text_at),
        "num_pieces": answer.num_pieces,
        "kept_chars": answer.kept_chars,
    }


def _add_answers(connection: sqlite3.Connection, conversation: Conversation) -> None:
    rows = connection.execute(
        "SELECT answer.id, turn, lane, attempt, model, state, text, finish_reason, error, "
        "error_code, worker_id, created_at, sampling, request, asked, figures, "
        "feedback.rating, feedback.reasons, feedback.note "
        "FROM answer LEFT JOIN feedback ON feedback.answer_id = answer.id "
        "AND feedback.person = ? WHERE conversation_id = ? ORDER BY turn, lane, attempt",
        (conversation.owner, conversation.id),
    )
    for row in rows:
        turn, lane = row[1], row[2]
        # Ordered by attempt: the last one stays.
        conversation.turns[turn].answers[lane] = _answer(row)


def _answer(row: Row) -> Answer:
    identity, _, _, attempt, model, state, text, finish_reason, error, error_code, *rest = row
    worker_id, created_at, sampling, request, asked, figures_text, *judged = rest
    figures = json.loads(figures_text)
    answer = Answer(
        id=identity,
        model=model,
        asked_at=0.0,
        attempt=attempt,
        created_at=created_at,
        sampling=Sampling.model_validate_json(sampling),
        state=AnswerState(state),
        text=text,
        kept_chars=figures["kept_chars"],
        finish_reason=None if finish_reason is None else FinishReason(finish_reason),
        usage=figures["usage"] and Usage.model_validate(figures["usage"]),
        metrics=figures["metrics"] and Metrics.model_validate(figures["metrics"]),
        error=error,
        error_code=error_code,
        worker_id=worker_id,
        request=None if request is None else json.loads(request),
        asked=None if asked is None else _asked_model(json.loads(asked)),
        feedback=_feedback(*judged),
        first_text_at=figures["first_text_seconds"],
        last_text_at=figures["last_text_seconds"],
        num_pieces=figures["num_pieces"],
    )
    return replace(answer, saved_version=answer.version)


def _asked_model(content: Mapping[str, Any]) -> AskedModel:
    return AskedModel(ModelCard.model_validate(content["card"]), content["memory_bytes"])


def _feedback(rating: str | None, reasons: str | None, note: str | None) -> Feedback:
    if reasons is None:
        return Feedback()
    return Feedback(
        None if rating is None else Rating(rating), tuple(json.loads(reasons)), note or ""
    )
