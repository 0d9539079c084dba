"""What the Compare page does: asks, streams, stops, and follows the fleet.

One stage event puts the question into the conversation, then one generator streams all columns:
several generators on one trigger would run one after another in the browser.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from webui.chat_view import chat_messages
from webui.conversation import MAX_COLUMNS, Answer, Conversation
from webui.figures import figures_html
from webui.gallery import Gallery
from webui.heads import Heads, Updates
from webui.page import Component, Page, Tab
from webui.questions import RefusedError, read_question, read_sampling
from webui.runs import BusyError, Run, RunRegistry
from webui.sampler import FIGURE_PACES, TEXT_PACES, Sampler
from webui.store import ConversationStore, StoreError
from webui.toolkit import gr
from webui.uploads import UploadError, UploadLimits

Result = Any  # `Updates`, or ``gr.skip()``, which has no type that a checker can see


class Compare:
    """The handlers of the page.

    Args:
        page: the components.
        store: where conversations are kept.
        runs: the questions under way.
        heads: of the columns; they follow the fleet.
        gallery: the examples.
        examples_folder: where their images lie.
        limits: of uploads.
    """

    def __init__(
        self,
        page: Page,
        *,
        store: ConversationStore,
        runs: RunRegistry,
        heads: Heads,
        gallery: Gallery,
        examples_folder: Path,
        limits: UploadLimits,
    ) -> None:
        self._page = page
        self._store = store
        self._runs = runs
        self._heads = heads
        self._gallery = gallery
        self._examples_folder = examples_folder
        self._limits = limits

    def connect(self, demo: Component) -> None:
        """Ties the handlers to the components' events; call it inside ``gr.Blocks``."""
        page = self._page
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        streaming = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,  # bounded by the run registry, which can say so
        }
        texts = [part for column in page.columns for part in (column.chat, column.figures)]
        stops = [column.stop for column in page.columns]
        heads = self._heads.outputs()
        identity = [page.conversation_id, page.address]
        answering = [page.composer, *texts, *stops]
        everything = [*dict.fromkeys([*identity, page.notice, page.examples, *heads, *answering])]
        demo.load(self.open_page, [page.tab], everything, **quick).then(
            self.follow, [page.conversation_id, page.tab], answering, **streaming
        )
        page.timer.tick(self.refresh, [page.conversation_id, page.tab], heads, **quick)
        page.composer.submit(
            self.ask,
            [page.conversation_id, page.tab, page.composer, *page.settings.inputs()],
            [*identity, page.notice, page.examples, *answering],
            **quick,
        ).then(self.answer, [page.conversation_id, page.tab], answering, **streaming)
        page.composer.stop(self.stop_all, [page.conversation_id], answering, **quick)
        page.new_chat.click(self.new_chat, [page.conversation_id, page.tab], everything, **quick)
        page.num_columns.input(
            self.set_num_columns,
            [page.conversation_id, page.tab, page.num_columns],
            heads,
            **quick,
        )
        page.picked_example.change(
            self.pick_example, [page.picked_example], [page.composer, page.notice], **quick
        )
        for number, column in enumerate(page.columns):
            column.model.input(
                partial(self.set_model, number),
                [page.conversation_id, page.tab, column.model],
                heads,
                # The choices change under the server's copy of the component; the name is
                # checked by the controller anyway.
                preprocess=False,
                **quick,
            )
            column.model.focus(partial(self.open_list, number), [page.tab], None, **quick)
            column.model.blur(partial(self.open_list, None), [page.tab], None, **quick)
            column.stop.click(
                partial(self.stop, number), [page.conversation_id], answering, **quick
            )

    async def open_page(self, tab: Tab, request: gr.Request) -> Updates:
        """Shows the conversation that the address names, or a new one."""
        query = request.query_params
        named = query.get("c", "")
        conversation = await self._store.get(named)
        is_lost = conversation is None and bool(named)
        if conversation is None:
            conversation = Conversation()
            wanted = [name for name in query.get("models", "").split(",") if name]
            if wanted:
                conversation.arrange(wanted)
                conversation.is_arranged = True
            await self._store.put(conversation)
        updates = self._everything(conversation, tab)
        if is_lost:
            updates[self._page.notice] = _notice(
                "The chat of this address is no longer kept: the server was restarted, or the "
                "chat is old. This is a new one."
            )
        return updates

    async def new_chat(self, conversation_id: str, tab: Tab) -> Updates:
        """An empty conversation over the same columns; what still runs is stopped."""
        run = self._runs.get(conversation_id)
        if run is not None:
            run.stop_all()
        old = await self._store.get(conversation_id)
        conversation = old.continued() if old is not None else Conversation()
        await self._store.put(conversation)
        return self._everything(conversation, tab) | {
            self._page.composer: self._composer(is_answering=False, clear=True)
        }

    async def refresh(self, conversation_id: str, tab: Tab) -> Result:
        """Once a second: what has changed in the fleet since this tab was told."""
        conversation = await self._store.get(conversation_id)
        if conversation is None:
            return gr.skip()
        return self._heads.updates(conversation, tab) or gr.skip()

    async def set_num_columns(self, conversation_id: str, tab: Tab, num_columns: int) -> Result:
        """Shows so many columns; the others keep their model and answers, out of sight."""
        conversation = await self._store.get(conversation_id)
        if conversation is None:
            return gr.skip()
        conversation.num_columns = min(MAX_COLUMNS, max(1, int(num_columns)))
        conversation.is_arranged = True
        await self._store.put(conversation)
        return self._heads.updates(conversation, tab) or gr.skip()

    async def open_list(self, column: int | None, tab: Tab) -> None:
        """Notes which list of models is open: Gradio's breaks if it loses a choice meanwhile."""
        tab.open_list = column

    async def set_model(self, column: int, conversation_id: str, tab: Tab, name: object) -> Result:
        """Gives a column another model, from its next answer on."""
        conversation = await self._store.get(conversation_id)
        if conversation is None or not isinstance(name, str) or not name:
            return gr.skip()
        conversation.column_at(column).model = name
        conversation.is_arranged = True
        await self._store.put(conversation)
        updates = self._heads.updates(conversation, tab)
        updates[self._page.columns[column].chat] = self._chat(conversation, column)
        return updates

    async def pick_example(self, picked: str) -> Result:
        """Puts an example into the composer; ``picked`` is the number of image and of prompt."""
        image_number, _, prompt_number = picked.partition(" ")[0].partition(".")
        try:
            example = self._gallery.examples[int(image_number)]
            prompt = example.prompts[int(prompt_number)]
        except (ValueError, IndexError):
            return gr.skip()  # not from our page's buttons
        path = self._examples_folder / example.image
        return {
            self._page.composer: {"text": prompt.prompt, "files": [str(path)]},
            self._page.notice: "",
        }

    async def ask(
        self, conversation_id: str, tab: Tab, composed: dict[str, Any], *sampling: object
    ) -> Updates:
        """Takes the question into the conversation, or says why not and leaves it composed."""
        page = self._page
        updates: Updates = {page.notice: ""}
        conversation = await self._store.get(conversation_id)
        if conversation is None:
            # Forgotten to make room for others; the question itself can still be answered.
            conversation = Conversation()
            self._heads.arrange(conversation)
            await self._store.put(conversation)
            updates |= self._identity(conversation, tab)
            updates[page.notice] = _notice(
                "The earlier turns were no longer kept; a new chat began."
            )
        try:
            conversation.sampling = read_sampling(sampling)
            turn = await read_question(
                composed, conversation, self._limits, problem=self._heads.problem
            )
            self._runs.check_free(conversation.id)
            turn.images = await self._store.keep_images(turn.images)
        except (RefusedError, BusyError, UploadError, StoreError) as exc:
            return updates | {page.notice: _notice(str(exc))}
        for answer in _open_answers(conversation):
            answer.stop()  # asked by a tab that was closed before its stream began
        conversation.turns.append(turn)
        conversation.is_arranged = True
        await self._store.put(conversation)
        updates |= {
            page.composer: self._composer(is_answering=True, clear=True),
            page.examples: gr.update(open=False),
        }
        return updates | self._answers(conversation)

    async def answer(self, conversation_id: str, tab: Tab) -> AsyncGenerator[Result]:
        """Streams all columns of the question just asked. Closing it hangs up on every worker."""
        conversation = await self._store.get(conversation_id)
        if conversation is None or not _open_answers(conversation):
            yield gr.skip()
            return
        try:
            async with (
                self._runs.open(conversation) as run,
                aclosing(self._frames(run)) as frames,
            ):
                async for updates in frames:
                    if tab.conversation_id != conversation_id:
                        break  # a new chat has begun in this tab; leaving ends the run
                    yield updates
        except BusyError as exc:
            # Another tab, or others, were faster between the question and now.
            if self._runs.get(conversation_id) is not None:
                yield gr.skip()
                return
            for answer in conversation.turns[-1].answers.values():
                answer.fail(str(exc))
        await self._store.put(conversation)
        is_shown = tab.conversation_id == conversation_id
        yield self._ended(conversation) if is_shown else gr.skip()

    async def follow(self, conversation_id: str, tab: Tab) -> AsyncGenerator[Result]:
        """Shows a run that another tab, or this one before it was reloaded, has started."""
        run = self._runs.get(conversation_id)
        if run is None:
            yield gr.skip()
            return
        async with aclosing(self._frames(run)) as frames:
            async for updates in frames:
                if tab.conversation_id != conversation_id:
                    break
                yield updates
        is_shown = tab.conversation_id == conversation_id
        yield self._ended(run.conversation) if is_shown else gr.skip()

    async def stop(self, column: int, conversation_id: str) -> Result:
        """Stops one column; its stream says so in the page."""
        return await self._stop(
            conversation_id, lambda run: run.stop(run.conversation.order[column])
        )

    async def stop_all(self, conversation_id: str) -> Result:
        """Stops every column."""
        return await self._stop(conversation_id, Run.stop_all)

    async def _stop(self, conversation_id: str, act: Callable[[Run], None]) -> Result:
        run = self._runs.get(conversation_id)
        if run is not None:
            act(run)
            return gr.skip()
        conversation = await self._store.get(conversation_id)
        # Nothing runs, whatever this tab believes: it may have missed the end.
        return gr.skip() if conversation is None else self._ended(conversation)

    async def _frames(self, run: Run) -> AsyncGenerator[Updates]:
        """Updates of a run until it is over, each column at the pace of its sampler."""
        texts, figures = Sampler(TEXT_PACES), Sampler(FIGURE_PACES)
        answers = run.conversation.turns[-1].answers
        while True:
            now, samples = time.monotonic(), run.samples()
            updates: Updates = {}
            place = {lane: at for at, lane in enumerate(run.conversation.visible)}
            for lane in texts.take_due(samples, now=now):
                if lane in place:
                    chat = self._page.columns[place[lane]].chat
                    updates[chat] = chat_messages(run.conversation, lane)
            for lane in figures.take_due(samples, now=now):
                if lane in place:
                    updates |= self._figures(answers.get(lane), place[lane])
            if updates:
                yield updates
            if run.is_over:
                return
            now, samples = time.monotonic(), run.samples()
            waits = [sampler.seconds_until_due(samples, now=now) for sampler in (texts, figures)]
            pending = [wait for wait in waits if wait is not None]
            if pending:
                await asyncio.sleep(min(pending))
            else:
                await run.wait_for_change()

    def _everything(self, conversation: Conversation, tab: Tab) -> Updates:
        page = self._page
        tab.shown = {}
        is_answering = self._runs.get(conversation.id) is not None
        return (
            self._heads.updates(conversation, tab)
            | self._answers(conversation)
            | self._identity(conversation, tab)
            | {
                page.composer: self._composer(is_answering=is_answering),
                page.notice: "",
                page.examples: gr.update(open=not conversation.turns),
            }
        )

    def _identity(self, conversation: Conversation, tab: Tab) -> Updates:
        tab.conversation_id = conversation.id
        return {
            self._page.conversation_id: conversation.id,
            self._page.address: f'<span data-conversation="{conversation.id}"></span>',
        }

    def _answers(self, conversation: Conversation) -> Updates:
        """Texts, figures and Stops of all columns."""
        last = conversation.turns[-1].answers if conversation.turns else {}
        updates: Updates = {}
        for number, column in enumerate(self._page.columns):
            updates[column.chat] = self._chat(conversation, number)
            updates |= self._figures(last.get(conversation.order[number]), number)
        return updates

    def _chat(self, conversation: Conversation, column: int) -> Component:
        return gr.update(
            value=chat_messages(conversation, conversation.order[column]),
            placeholder=self._heads.card(conversation.column_at(column).model),
        )

    def _figures(self, answer: Answer | None, column: int) -> Updates:
        can_stop = answer is not None and not answer.has_ended
        parts = self._page.columns[column]
        return {parts.figures: figures_html(answer), parts.stop: gr.update(interactive=can_stop)}

    def _ended(self, conversation: Conversation) -> Updates:
        return self._answers(conversation) | {
            self._page.composer: self._composer(is_answering=False)
        }

    def _composer(self, *, is_answering: bool, clear: bool = False) -> Component:
        buttons = {"submit_btn": not is_answering, "stop_btn": is_answering}
        if clear:
            return gr.update(value={"text": "", "files": []}, **buttons)
        return gr.update(**buttons)


def _open_answers(conversation: Conversation) -> list[Answer]:
    """The answers to the last turn that have no end yet."""
    if not conversation.turns:
        return []
    answers = conversation.turns[-1].answers.values()
    return [answer for answer in answers if not answer.has_ended]


def _notice(text: str) -> str:
    return f'<div class="notice" role="alert">{escape(text)}</div>'
