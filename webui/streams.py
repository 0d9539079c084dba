"""The answers of a chat as they reach a tab, and their stop."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from webui.answer import Answer
from webui.arranging import Result, is_own
from webui.conversation import Conversation
from webui.page import Tab
from webui.runs import BusyError, RunRegistry
from webui.store import ConversationStore
from webui.toolkit import gr
from webui.view import View


class Streams:
    """The handlers that stream.

    Args:
        view: what tabs show.
        store: where conversations are kept.
        runs: the questions under way.
    """

    def __init__(self, *, view: View, store: ConversationStore, runs: RunRegistry) -> None:
        self._view = view
        self._store = store
        self._runs = runs

    async def answer(self, conversation_id: str, tab: Tab) -> AsyncGenerator[Result]:
        """Streams what is open of the last question; one that is closed has left the run."""
        conversation = await self._store.get(conversation_id)
        run = self._runs.get(conversation_id)
        if run is not None and not run.has_readers:
            # This tab's own, whose connection broke: nobody else shows what it goes on to say.
            async with aclosing(self.follow(conversation_id, tab)) as shown:
                async for updates in shown:
                    yield updates
            return
        if conversation is None or run is not None or not open_answers(conversation):
            yield gr.skip()
            return
        try:
            async with (
                self._runs.open(conversation) as opened,
                aclosing(self._view.frames(opened, tab)) as frames,
            ):
                async for updates in frames:
                    if tab.conversation_id != conversation_id:
                        break  # a new chat has begun in this tab, and has ended the answers
                    yield updates or gr.skip()
        except BusyError as exc:
            # Another tab, or others, were faster between the question and now.
            if self._runs.get(conversation_id) is not None:
                yield gr.skip()
                return
            for answer in open_answers(conversation):
                answer.fail(str(exc), code="busy")
            await self._store.put(conversation)
        is_shown = tab.conversation_id == conversation_id
        yield self._view.ended(conversation, tab) if is_shown else gr.skip()

    async def follow(self, conversation_id: str, tab: Tab) -> AsyncGenerator[Result]:
        """Shows a run that another tab, or this one before it was reloaded, has started."""
        run = self._runs.get(conversation_id)
        if run is None:
            conversation = await self._store.get(conversation_id) if tab.is_answering else None
            # It may have come to its end since the tab was opened.
            yield gr.skip() if conversation is None else self._view.ended(conversation, tab)
            return
        with self._runs.reading(run):
            async with aclosing(self._view.frames(run, tab)) as frames:
                async for updates in frames:
                    if tab.conversation_id != conversation_id:
                        break
                    yield updates or gr.skip()
        is_shown = tab.conversation_id == conversation_id
        yield self._view.ended(run.conversation, tab) if is_shown else gr.skip()

    async def stop_all(self, conversation_id: str, tab: Tab) -> Result:
        """Stops every column."""
        run = self._runs.get(conversation_id)
        conversation = await self._store.get(conversation_id)
        if conversation is None:
            return gr.skip()
        if run is not None:
            if is_own(conversation, tab):
                run.stop_all()
            return gr.skip()
        # Nothing runs, whatever this tab believes: it may have missed the end.
        return self._view.ended(conversation, tab)


def open_answers(conversation: Conversation) -> list[Answer]:
    """The answers to the last turn that have no end yet."""
    if not conversation.turns:
        return []
    answers = conversation.turns[-1].answers.values()
    return [answer for answer in answers if not answer.has_ended]
