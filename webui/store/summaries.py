"""Conversations in a list: what each was about, without its answers."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from webui.conversation import Kind

_SEPARATOR = "\x1f"  # no model's name holds it


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a history."""

    id: str
    title: str  # a person's own; empty if none was given
    first_question: str
    models: tuple[str, ...]  # those that were asked, by name
    num_turns: int
    num_images: int
    kind: Kind
    is_pinned: bool
    created_at: float  # Unix seconds
    used_at: float


def read_summaries(
    connection: sqlite3.Connection,
    *,
    owner: str,
    search: str,
    kind: Kind | None,
    limit: int,
    offset: int,
) -> list[Summary]:
    """A person's conversations in which something was asked: pinned ones first, then the latest.

    ``search`` must occur in the title, a question or an answer, in any case of letters.
    """
    pattern = "%" + search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = connection.execute(
        """
        SELECT id, title, kind, is_pinned, created_at, used_at,
            (SELECT text FROM turn WHERE conversation_id = c.id AND number = 0),
            (SELECT count(*) FROM turn WHERE conversation_id = c.id),
            (SELECT count(*) FROM turn_image WHERE conversation_id = c.id),
            (SELECT group_concat(model, :separator) FROM
                (SELECT DISTINCT model FROM answer WHERE conversation_id = c.id ORDER BY model))
        FROM conversation AS c
        WHERE owner = :owner AND (:kind IS NULL OR kind = :kind)
            AND EXISTS (SELECT 1 FROM turn WHERE conversation_id = c.id)
            AND (:search = '' OR title LIKE :pattern ESCAPE '\\'
                OR EXISTS (SELECT 1 FROM turn
                    WHERE conversation_id = c.id AND text LIKE :pattern ESCAPE '\\')
                OR EXISTS (SELECT 1 FROM answer
                    WHERE conversation_id = c.id AND text LIKE :pattern ESCAPE '\\'))
        ORDER BY is_pinned DESC, used_at DESC LIMIT :limit OFFSET :offset
        """,
        {
            "owner": owner,
            "kind": kind,
            "search": search,
            "pattern": pattern,
            "separator": _SEPARATOR,
            "limit": limit,
            "offset": offset,
        },
    )
    return [
        Summary(
            id=identity,
            title=title,
            first_question=question,
            models=tuple(models.split(_SEPARATOR)) if models else (),
            num_turns=num_turns,
            num_images=num_images,
            kind=Kind(kind_name),
            is_pinned=bool(is_pinned),
            created_at=created_at,
            used_at=used_at,
        )
        for identity, title, kind_name, is_pinned, created_at, used_at, question, num_turns, (
            num_images
        ), models in rows
    ]
