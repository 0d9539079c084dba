"""Questions that are being answered: one task a column, each stoppable on its own.

A run lives exactly as long as the ``async with`` around it. Leaving it, for whatever reason,
cancels the tasks, which close their HTTP streams, which ends the generation in the workers. What
has arrived is written down about once a second and at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext

from webui.answer import Answer, AskedModel
from webui.client import ControllerClient
from webui.controller_error import ControllerError
from webui.conversation import Conversation
from webui.requests import DataUris, body_of, build_request, images_of, read_data_uris
from webui.sampler import Sample
from webui.store import ConversationStore, StoreError

_log = logging.getLogger(__name__)
_SAVE_SECONDS = 1.0

# What the fleet says of a model, and of the worker that answered if that is known.
Describe = Callable[[str, str | None], AskedModel | None]
# Told of each answer that has ended: its conversation and lane.
NoteEnd = Callable[[Conversation, int], None]


class BusyError(Exception):
    """No further question can be taken now; the message says why and what to do."""


class Run:
    """The last turn of a conversation, while its columns answer.

    Args:
        conversation: its last turn has the answers that are to come.
        client: the controller.
        store: where they are written down.
        describe: who is asked.
        note_end: told of each answer that has ended.
    """

    def __init__(
        self,
        conversation: Conversation,
        client: ControllerClient,
        store: ConversationStore,
        describe: Describe,
        note_end: NoteEnd,
    ) -> None:
        self.conversation = conversation
        self._client = client
        self._store = store
        self._describe = describe
        self._note_end = note_end
        self._answers = conversation.turns[-1].answers
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._uris: DataUris = {}
        # Columns wait for each other in the order in which they were asked.
        self._lock = asyncio.Lock() if conversation.is_sequential else None
        self._saving: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether every column has its end."""
        return all(answer.has_ended for answer in self._answers.values())

    def samples(self) -> list[Sample]:
        """How each lane is now."""
        return [
            Sample(lane, (answer.id, answer.version), len(answer.text), answer.has_ended)
            for lane, answer in self._answers.items()
        ]

    async def wait_for_change(self) -> None:
        """Returns at the next change. Any number of readers may wait."""
        await self._changed.wait()

    async def wait_for_end(self, seconds: float) -> None:
        """Returns once every column has its end, at the latest after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def announce(self) -> None:
        """Wakes everybody who waits for a change."""
        # A fresh event for the next change: clearing this one would hide it from slower readers.
        self._changed.set()
        self._changed = asyncio.Event()
        if self.is_over:
            self._over.set()
        else:
            self._over.clear()  # an ended answer was asked anew

    def stop(self, lane: int) -> None:
        """Ends one column's answer and hangs up on its worker; the others go on."""
        self._end(lane, Answer.stop)

    def stop_all(self) -> None:
        """Ends every answer that has not ended."""
        for lane in self._answers:
            self.stop(lane)

    def cut_all(self) -> None:
        """Ends every answer because this server ends."""
        for lane in self._answers:
            self._end(lane, Answer.cut)

    def ask(self, lane: int) -> None:
        """Asks a column's model for the answer that the turn has open for it."""
        self._tasks[lane] = asyncio.create_task(self._answer(lane, self._answers[lane]))
        self.announce()

    async def start(self) -> None:
        """Asks every column's model, in the order in which they are shown."""
        self._saving = asyncio.create_task(self._save_now_and_then())
        try:
            self._uris = await asyncio.to_thread(read_data_uris, images_of(self.conversation))
        except FileNotFoundError:
            for answer in self._answers.values():
                answer.fail(
                    "An image of this conversation has been cleaned away on the server. Start a "
                    "new chat and upload it again.",
                    code="image_gone",
                )
            self.announce()
            return
        for lane in self.conversation.order:
            if lane in self._answers and not self._answers[lane].has_ended:
                self.ask(lane)

    async def close(self) -> None:
        """Stops what still runs, waits until its streams are closed, and writes it all down."""
        self.stop_all()
        if self._saving is not None:
            self._saving.cancel()
        tasks = [task for task in (*self._tasks.values(), self._saving) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._save()

    def _end(self, lane: int, end: Callable[[Answer], None]) -> None:
        answer = self._answers.get(lane)
        if answer is None or answer.has_ended:
            return
        end(answer)
        task = self._tasks.get(lane)
        if task is not None:
            task.cancel()
        self.announce()

    async def _answer(self, lane: int, answer: Answer) -> None:
        try:
            async with self._lock or nullcontext():
                await self._stream(lane, answer)
            answer.finish()
        except ControllerError as exc:
            answer.fail(exc.message, code=exc.code)
        except Exception as exc:  # noqa: BLE001  (the edge of a task)
            # Without this the column would wait for ever.
            _log.exception("lane %d of conversation %s failed", lane, self.conversation.id)
            answer.fail(
                f"{type(exc).__name__} in the page's own server; its log has the cause. Ask again.",
                code="internal_error",
            )
        finally:
            # The worker's memory is what it is now, with this answer in its cache.
            answer.asked = self._describe(answer.model, answer.worker_id) or answer.asked
            answer.version += 1
            self.announce()
            if answer.has_ended and self._answers.get(lane) is answer:
                self._note_end(self.conversation, lane)

    async def _stream(self, lane: int, answer: Answer) -> None:
        answer.request = build_request(self.conversation, lane)
        answer.asked = self._describe(answer.model, None)
        body = await asyncio.to_thread(body_of, answer.request, self._uris)
        answer.asked_at = time.monotonic()

        def note_worker(worker_id: str) -> None:
            answer.worker_id = worker_id

        async with aclosing(self._client.chat(body, note_worker=note_worker)) as chunks:
            async for chunk in chunks:
                answer.take(chunk, now=time.monotonic())
                self.announce()

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            await self._save()

    async def _save(self) -> None:
        try:
            await self._store.put(self.conversation)
        except StoreError:
            # The answer is still on the page; the next save writes all of it.
            _log.exception("conversation %s could not be written", self.conversation.id)


class RunRegistry:
    """The runs that are under way, at most one a conversation.

    Args:
        client: the controller.
        store: where answers are written down.
        describe: who is asked.
        limit: runs at the same time.
        note_end: told of each answer that has ended.
    """

    def __init__(
        self,
        client: ControllerClient,
        store: ConversationStore,
        describe: Describe,
        *,
        limit: int,
        note_end: NoteEnd = lambda _conversation, _lane: None,
    ) -> None:
        self._client = client
        self._store = store
        self._describe = describe
        self._limit = limit
        self._note_end = note_end
        self._runs: dict[str, Run] = {}

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
        """Asks the models whose answers to the conversation's last turn are open.

        Raises:
            BusyError: as `check_free`.
        """
        self.check_free(conversation.id)
        run = Run(conversation, self._client, self._store, self._describe, self._note_end)
        self._runs[conversation.id] = run
        try:
            await run.start()
            yield run
        finally:
            # The entry goes first: who stops an answer may ask again at once.
            del self._runs[conversation.id]
            await run.close()

    def cut_everything(self) -> None:
        """Ends every answer, when the process is about to go."""
        for run in list(self._runs.values()):
            run.cut_all()
