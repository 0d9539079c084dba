"""The page's memory: conversations by id, live ones as one object each, all of them on the disk."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from webui.answer import Answer, Feedback
from webui.conversation import Conversation, Kind, UploadedImage
from webui.store import records
from webui.store.database import Database, StoreError
from webui.store.images import ImageFolder
from webui.store.instance import Instance
from webui.store.pruning import Bounds, prune
from webui.store.summaries import Summary, read_summaries

_log = logging.getLogger(__name__)

_FILE = "paragone.sqlite3"
_HELD = 256  # conversations held in memory although nobody does anything with them now
_PUTS_BETWEEN_PRUNINGS = 50  # new conversations


class ConversationStore:
    """Conversations, answers, feedback and images in one folder.

    While a conversation is in use, the same id gives the same object: a stream writes into it and a
    second view of it reads along. Use it from one event loop.

    Args:
        folder: where everything is; made if it is not there.
        bounds: how much of it may pile up.

    Raises:
        StoreError: the folder cannot be used.
    """

    def __init__(self, folder: Path, bounds: Bounds = Bounds()) -> None:  # noqa: B008  (frozen)
        self.images = ImageFolder(folder / "images")
        self.database = Database(folder / _FILE)
        self._bounds = bounds
        self._instance = Instance(folder / "servers")
        self._held: OrderedDict[str, Conversation] = OrderedDict()
        self._live: weakref.WeakValueDictionary[str, Conversation] = weakref.WeakValueDictionary()
        self._deleted: set[str] = set()
        self._num_new = 0
        living = self._instance.living()
        num_cut = self.database.run_now(lambda connection: _cut(connection, living))
        if num_cut:
            _log.warning("%d answers were cut by the end of an earlier server", num_cut)
        _, self._num_bytes = self.database.run_now(self._prune)

    async def get(self, conversation_id: str) -> Conversation | None:
        """The conversation, or None if there is none of this id (any more).

        Raises:
            StoreError: the store cannot be read.
        """
        conversation = self._live.get(conversation_id)
        if conversation is None:
            if not conversation_id or conversation_id in self._deleted:
                return None
            read = await self.database.run(
                lambda connection: records.read(connection, conversation_id, self.images)
            )
            # Somebody else may have read it meanwhile: there is one object an id.
            conversation = self._live.get(conversation_id, read)
        if conversation is not None:
            self._hold(conversation)
        return conversation

    async def put(self, conversation: Conversation) -> None:
        """Keeps a new conversation, or writes what has changed of a known one.

        Raises:
            StoreError: it cannot be written; it is still here, and written with the next change.
        """
        if conversation.id in self._deleted:
            return
        is_new = conversation.id not in self._live
        self._hold(conversation)
        # Rows are made here, before anything else can change it, and written elsewhere.
        changes = records.changes_of(conversation, server=self._instance.id)
        records.mark_written(conversation, changes)
        try:
            await self.database.run(lambda connection: records.write(connection, changes))
        except StoreError:
            records.mark_unwritten(conversation)
            raise
        if is_new:
            self._num_new += 1
            if self._num_new % _PUTS_BETWEEN_PRUNINGS == 0:
                await self.prune()

    async def keep_images(self, images: Sequence[UploadedImage]) -> tuple[UploadedImage, ...]:
        """Copies checked uploads into the store.

        Raises:
            StoreError: they cannot be written, or the store is full.
        """
        if self._num_bytes > self._bounds.max_bytes:
            await self.prune()
        if self._num_bytes > self._bounds.max_bytes:
            raise StoreError(
                f"The page's store is full: {self._num_bytes / 2**20:.0f} of "
                f"{self._bounds.max_bytes / 2**20:.0f} MiB, all of it pinned or in use. Unpin or "
                f"delete chats, or raise --max-data-mib."
            )
        if not images:
            return ()
        kept = await self.database.run(lambda _: tuple(map(self.images.keep, images)))
        self._num_bytes += sum(image.num_bytes for image in kept)
        return kept

    async def judge(
        self, conversation: Conversation, answer: Answer, feedback: Feedback, *, person: str
    ) -> None:
        """Keeps what a person thinks of an answer, in the place of what they thought before.

        Raises:
            StoreError: it cannot be written.
        """
        await self.put(conversation)  # the answer has its row before its feedback
        row = (
            answer.id,
            person,
            feedback.rating,
            json.dumps(feedback.reasons),
            feedback.note,
            time.time(),
        )
        if feedback == Feedback():
            await self.database.run(
                lambda connection: connection.execute(
                    "DELETE FROM feedback WHERE answer_id = ? AND person = ?", row[:2]
                )
            )
        else:
            await self.database.run(
                lambda connection: connection.execute(
                    "INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (answer_id, person) DO UPDATE SET rating = excluded.rating, "
                    "reasons = excluded.reasons, note = excluded.note, "
                    "given_at = excluded.given_at",
                    row,
                )
            )
        answer.judge(feedback)

    async def summaries(
        self,
        owner: str,
        *,
        search: str = "",
        kind: Kind | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Summary]:
        """A person's conversations, pinned ones first, then the latest; see `read_summaries`.

        Raises:
            StoreError: the store cannot be read.
        """
        return await self.database.run(
            lambda connection: read_summaries(
                connection, owner=owner, search=search, kind=kind, limit=limit, offset=offset
            )
        )

    async def rename(self, conversation_id: str, title: str) -> None:
        """Gives a conversation a title; an empty one lets its first question stand for it.

        Raises:
            StoreError: it cannot be written.
        """
        conversation = await self.get(conversation_id)
        if conversation is not None:
            conversation.title = title.strip()
            await self.put(conversation)

    async def pin(self, conversation_id: str, *, is_pinned: bool) -> None:
        """Keeps a conversation from being forgotten to make room, or no longer.

        Raises:
            StoreError: it cannot be written.
        """
        conversation = await self.get(conversation_id)
        if conversation is not None:
            conversation.is_pinned = is_pinned
            await self.put(conversation)

    async def delete(self, conversation_id: str) -> None:
        """Forgets a conversation; its images go with the next pruning, if nobody else uses them.

        Raises:
            StoreError: it cannot be written.
        """
        await self.database.run(
            lambda connection: connection.execute(
                "DELETE FROM conversation WHERE id = ?", (conversation_id,)
            )
        )
        self._forget(conversation_id)

    async def prune(self) -> None:
        """Forgets what is beyond the bounds.

        Raises:
            StoreError: the store cannot be written.
        """
        deleted, self._num_bytes = await self.database.run(self._prune)
        for conversation_id in deleted:
            self._forget(conversation_id)

    @property
    def num_bytes(self) -> int:
        """How much all of it takes on the disk, as of the last pruning and what came since."""
        return self._num_bytes

    def close(self) -> None:
        """Marks what is still under way as cut, and closes the file."""
        self.database.run_now(lambda connection: _cut(connection, set(), only=self._instance.id))
        self.database.close()
        self._instance.close()

    def _prune(self, connection: sqlite3.Connection) -> tuple[list[str], int]:
        return prune(connection, self.images, self._bounds, now=time.time())

    def _hold(self, conversation: Conversation) -> None:
        self._live[conversation.id] = conversation
        self._held[conversation.id] = conversation
        self._held.move_to_end(conversation.id)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)

    def _forget(self, conversation_id: str) -> None:
        self._deleted.add(conversation_id)
        self._held.pop(conversation_id, None)
        self._live.pop(conversation_id, None)


def _cut(connection: sqlite3.Connection, living: set[str], *, only: str | None = None) -> int:
    """Marks answers whose server is gone; of one server alone with ``only``. Returns how many."""
    under_way = connection.execute(
        "SELECT DISTINCT server FROM answer WHERE state IN ('waiting', 'streaming')"
    ).fetchall()
    gone = [server for (server,) in under_way if server not in living]
    if only is not None:
        gone = [only]
    num_cut = 0
    for server in gone:
        num_cut += connection.execute(
            "UPDATE answer SET state = 'cut' "
            "WHERE server = ? AND state IN ('waiting', 'streaming')",
            (server,),
        ).rowcount
    return num_cut
