"""A question that is being answered: one task a column, each stoppable on its own.

A run's end, for whatever reason, cancels the tasks, which close their HTTP streams, which ends the
generation in the workers. What has arrived is written down about once a second and at the end. How
long it lives is `webui.runs`'s to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, nullcontext

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
        self._deserted = asyncio.Event()
        self._num_readers = self._num_left = 0
        self._uris: DataUris = {}
        # Columns wait for each other in the order in which they were asked.
        self._lock = asyncio.Lock() if conversation.is_sequential else None
        self._saving: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether every column has its end."""
        return all(answer.has_ended for answer in self._answers.values())

    @property
    def has_readers(self) -> bool:
        """Whether anybody is shown it now."""
        return self._num_readers > 0

    def samples(self) -> list[Sample]:
        """How each lane is now."""
        return [
            Sample(lane, (answer.id, answer.version), len(answer.text), answer.has_ended)
            for lane, answer in self._answers.items()
        ]

    async def wait_for_change(self, seconds: float | None = None) -> None:
        """Returns at the next change, or after so many seconds. Any number of readers may wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def wait_for_end(self, seconds: float) -> None:
        """Returns once every column has its end, at the latest after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    @contextlib.contextmanager
    def being_read(self) -> Iterator[None]:
        """Somebody is shown it, for as long as the context is open."""
        self._num_readers += 1
        self._deserted.clear()
        try:
            yield
        finally:
            self._num_readers -= 1
            self._num_left += 1
            if not self._num_readers:
                self._deserted.set()

    async def wait_until_deserted(self, seconds: float) -> None:
        """Returns once nobody has read it for so many seconds, or reads it after its end."""
        while True:
            await self._deserted.wait()
            num_left = self._num_left
            await self.wait_for_end(seconds)
            if not self.has_readers and (self.is_over or self._num_left == num_left):
                return

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
        """Waits until the streams of what was ended are closed, and writes it all down."""
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
