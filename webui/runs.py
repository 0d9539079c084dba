"""Questions that are being answered: one task a column, each stoppable on its own.

A run lives exactly as long as the ``async with`` around it. Leaving it, for whatever reason,
cancels the tasks, which close their HTTP streams, which ends the generation in the workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from webui.client import ControllerClient, ControllerError
from webui.conversation import Answer, Conversation
from webui.requests import DataUris, read_data_uris, request_body
from webui.sampler import Sample

_log = logging.getLogger(__name__)


class BusyError(Exception):
    """No further question can be taken now; the message says why and what to do."""


class Run:
    """The last turn of a conversation, while its columns answer."""

    def __init__(self, conversation: Conversation, client: ControllerClient) -> None:
        self.conversation = conversation
        self._client = client
        self._answers = conversation.turns[-1].answers
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    @property
    def columns(self) -> list[int]:
        """The columns that were asked."""
        return list(self._answers)

    @property
    def is_over(self) -> bool:
        """Whether every column has its end."""
        return all(answer.has_ended for answer in self._answers.values())

    def samples(self) -> list[Sample]:
        """How each column is now."""
        return [
            Sample(column, answer.version, len(answer.text), answer.has_ended)
            for column, answer in self._answers.items()
        ]

    async def wait_for_change(self) -> None:
        """Returns at the next change. Any number of readers may wait."""
        await self._changed.wait()

    def _announce(self) -> None:
        # A fresh event for the next change: clearing this one would hide it from slower readers.
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self, column: int) -> None:
        """Ends one column's answer and hangs up on its worker; the others go on."""
        answer = self._answers.get(column)
        if answer is None or answer.has_ended:
            return
        answer.stop()
        task = self._tasks.get(column)
        if task is not None:
            task.cancel()
        self._announce()

    def stop_all(self) -> None:
        """Ends every answer that has not ended."""
        for column in self._answers:
            self.stop(column)

    async def start(self) -> None:
        """Asks every column's model."""
        try:
            uris = await asyncio.to_thread(read_data_uris, self.conversation)
        except FileNotFoundError:
            for answer in self._answers.values():
                answer.fail(
                    "An image of this conversation has been cleaned away on the server, which "
                    "keeps uploads for a day. Start a new chat and upload it again."
                )
            self._announce()
            return
        for column, answer in self._answers.items():
            if not answer.has_ended:  # stopped while the images were read
                self._tasks[column] = asyncio.create_task(self._answer(column, answer, uris))

    async def close(self) -> None:
        """Stops what still runs and waits until its streams are closed."""
        self.stop_all()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _answer(self, column: int, answer: Answer, uris: DataUris) -> None:
        try:
            body = await asyncio.to_thread(request_body, self.conversation, column, uris)
            async with aclosing(self._client.chat(body)) as chunks:
                async for chunk in chunks:
                    answer.take(chunk, now=time.monotonic())
                    self._announce()
            answer.finish()
        except ControllerError as exc:
            answer.fail(exc.message)
        except Exception as exc:  # noqa: BLE001  (the edge of a task)
            # Without this the column would wait for ever.
            _log.exception("column %d of conversation %s failed", column, self.conversation.id)
            answer.fail(
                f"{type(exc).__name__} in the page's own server; its log has the cause. Ask again."
            )
        finally:
            self._announce()


class RunRegistry:
    """The runs that are under way, at most one a conversation.

    Args:
        client: the controller.
        limit: runs at the same time.
    """

    def __init__(self, client: ControllerClient, *, limit: int) -> None:
        self._client = client
        self._limit = limit
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
        """Asks the models of the conversation's last turn.

        Raises:
            BusyError: as `check_free`.
        """
        self.check_free(conversation.id)
        run = Run(conversation, self._client)
        self._runs[conversation.id] = run
        try:
            await run.start()
            yield run
        finally:
            # The entry goes first: who stops an answer may ask again at once.
            del self._runs[conversation.id]
            await run.close()

    def stop_everything(self) -> None:
        """Ends every answer, when the process is about to go."""
        for run in list(self._runs.values()):
            run.stop_all()
