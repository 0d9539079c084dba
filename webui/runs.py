"""The questions that are being answered, at most one a conversation.

Each has a task of its own and lives as long as somebody reads it, and a moment longer: a tab that
is reloaded comes back to its answers. Those of a closed tab end after that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from webui.client import ControllerClient
from webui.conversation import Conversation
from webui.run import Describe, NoteEnd, Run
from webui.store import ConversationStore

_log = logging.getLogger(__name__)


class BusyError(Exception):
    """No further question can be taken now; the message says why and what to do."""


class RunRegistry:
    """The runs that are under way, at most one a conversation.

    Args:
        client: the controller.
        store: where answers are written down.
        describe: who is asked.
        limit: runs at the same time.
        unwatched_seconds: how long a run goes on that nobody reads.
        note_end: told of each answer that has ended.
    """

    def __init__(
        self,
        client: ControllerClient,
        store: ConversationStore,
        describe: Describe,
        *,
        limit: int,
        unwatched_seconds: float,
        note_end: NoteEnd = lambda _conversation, _lane: None,
    ) -> None:
        self._client = client
        self._store = store
        self._describe = describe
        self._limit = limit
        self._unwatched_seconds = unwatched_seconds
        self._note_end = note_end
        self._runs: dict[str, Run] = {}
        self._owners: set[asyncio.Task[None]] = set()

    def get(self, conversation_id: str) -> Run | None:
        """The run of this conversation, if it is being answered."""
        return self._runs.get(conversation_id)

    def check_free(self, conversation_id: str) -> None:
        """Whether a question to this conversation could be taken now.

        Raises:
            BusyError: this conversation, or the whole page, has enough to do.
        """
        if conversation_id in self._runs:
            raise BusyError(
                "The last question is still being answered: press Esc to stop it, or wait"
            )
        if len(self._runs) >= self._limit:
            raise BusyError(
                f"This server is busy: it is answering {self._limit} questions, the most it may "
                f"(--concurrency-count); try again in a moment"
            )

    @asynccontextmanager
    async def open(self, conversation: Conversation) -> AsyncIterator[Run]:
        """Asks the models whose answers to the conversation's last turn are open, and reads them.

        Raises:
            BusyError: as `check_free`.
        """
        self.check_free(conversation.id)
        run = Run(conversation, self._client, self._store, self._describe, self._note_end)
        self._runs[conversation.id] = run
        with self.reading(run):
            # Not the reader's own: one that leaves, or is cancelled, takes no answers along.
            owner = asyncio.create_task(self._own(run))
            self._owners.add(owner)
            owner.add_done_callback(self._owners.discard)
            yield run
        if self.get(conversation.id) is not run:
            await asyncio.wait([owner])  # until all of it is written down

    @contextlib.contextmanager
    def reading(self, run: Run) -> Iterator[Run]:
        """Reads a run; the last reader who leaves one that is over takes its entry along."""
        try:
            with run.being_read():
                yield run
        finally:
            if run.is_over and not run.has_readers:
                self._forget(run)

    def cut_everything(self) -> None:
        """Ends every answer, when the process is about to go."""
        for run in list(self._runs.values()):
            run.cut_all()

    async def aclose(self) -> None:
        """Ends every run, and waits until all is written down."""
        owners = list(self._owners)
        for owner in owners:
            owner.cancel()
        await asyncio.gather(*owners, return_exceptions=True)

    async def _own(self, run: Run) -> None:
        try:
            await run.start()
            await run.wait_until_deserted(self._unwatched_seconds)
        except Exception:  # noqa: BLE001  (the edge of a task)
            _log.exception("the run of conversation %s failed", run.conversation.id)
        finally:
            self._forget(run)
            await run.close()

    def _forget(self, run: Run) -> None:
        if self._runs.get(run.conversation.id) is not run:
            return
        # In one step: who is asked again from now on is asked by another run, and not stopped here.
        del self._runs[run.conversation.id]
        run.stop_all()
