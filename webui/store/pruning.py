"""Keeps the store within its bounds: what was unused for longest goes first, pinned chats never."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from webui.store.images import ImageFolder

_DAY_SECONDS = 86_400
_UNASKED_KEPT_SECONDS = _DAY_SECONDS  # a page that was opened, and nothing more
_FRESH_SECONDS = 3_600  # an image may be kept before the question that has it is written
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may pile up."""

    max_conversations: int = 10_000
    max_bytes: int = 4 * 2**30  # images and texts together


def prune(
    connection: sqlite3.Connection, images: ImageFolder, bounds: Bounds, *, now: float
) -> tuple[list[str], int]:
    """Deletes what is beyond the bounds. Blocks.

    Args:
        connection: in a transaction.
        images: whose files go with their conversations.
        bounds: the limits.
        now: Unix seconds.

    Returns:
        the ids of the conversations that went, and the bytes that are left.
    """
    deleted = [
        identity
        for (identity,) in connection.execute(
            "DELETE FROM conversation WHERE used_at < ? AND is_pinned = 0 AND NOT EXISTS "
            "(SELECT 1 FROM turn WHERE conversation_id = conversation.id) RETURNING id",
            (now - _UNASKED_KEPT_SECONDS,),
        ).fetchall()
    ]
    (num_conversations,) = connection.execute("SELECT count(*) FROM conversation").fetchone()
    too_many = max(0, num_conversations - bounds.max_conversations)
    deleted += _delete_oldest(connection, too_many, unused_since=now)
    while True:
        images.delete_unless(_used(connection), older_than=now - _FRESH_SECONDS)
        num_bytes = _num_bytes(connection) + images.num_bytes()
        if num_bytes <= bounds.max_bytes:
            return deleted, num_bytes
        # What is being talked about now stays, even if that leaves the store too large: then it
        # takes no more images.
        gone = _delete_oldest(connection, _BATCH, unused_since=now - _FRESH_SECONDS)
        if not gone:
            return deleted, num_bytes
        deleted += gone


def _delete_oldest(connection: sqlite3.Connection, count: int, *, unused_since: float) -> list[str]:
    rows = connection.execute(
        "DELETE FROM conversation WHERE id IN (SELECT id FROM conversation "
        "WHERE is_pinned = 0 AND used_at < ? ORDER BY used_at LIMIT ?) RETURNING id",
        (unused_since, count),
    )
    return [identity for (identity,) in rows.fetchall()]


def _used(connection: sqlite3.Connection) -> set[str]:
    return {digest for (digest,) in connection.execute("SELECT DISTINCT digest FROM turn_image")}


def _num_bytes(connection: sqlite3.Connection) -> int:
    """What the rows take; pages that were freed are filled again before the file grows."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)
