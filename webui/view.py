"""From a conversation to what a tab shows of it; remembers what the tab was told already."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from html import escape
from typing import Any

from webui.answer import Answer
from webui.chat_view import chat_messages
from webui.conversation import Conversation
from webui.difference import Differences
from webui.figures import agreement_html, figures_html
from webui.heads import Heads, Updates
from webui.help_view import help_html
from webui.page import Component, Page, Tab
from webui.run import Run
from webui.sampler import (
    DIFFERENCE_PACES,
    FIGURE_PACES,
    TEXT_PACES,
    FramePace,
    Sample,
    Sampler,
)
from webui.settings_view import settings_updates
from webui.toolkit import gr
from webui.tools import answer_tools_html, compose_tools_html

_SIGN_SECONDS = 2.0  # between two signs of life of a tab whose columns all wait


class View:
    """Makes updates of the page's components.

    Args:
        page: the components.
        heads: of the columns; they follow the fleet.
        can_fetch: whether images may be fetched by their addresses.
    """

    def __init__(self, page: Page, heads: Heads, *, can_fetch: bool) -> None:
        self._page = page
        self._can_fetch = can_fetch
        self._heads = heads
        self._differences = Differences()

    def answering(self) -> list[Component]:
        """The components that a stream of answers may name."""
        columns = self._page.columns
        parts = [part for c in columns for part in (c.chat, c.figures, c.answer_tools)]
        return [self._page.composer, *parts]

    def all(self) -> list[Component]:
        """Every component that any update may name."""
        page = self._page
        parts = [
            page.conversation_id,
            page.address,
            page.notice,
            page.examples,
            page.compose_tools,
            page.panel,
            page.help,
            *self._heads.outputs(),
            *self.answering(),
            *page.settings.outputs(),
        ]
        return list(dict.fromkeys(parts))

    def everything(self, conversation: Conversation, tab: Tab, *, is_answering: bool) -> Updates:
        """A tab that shows this conversation from now on."""
        page, words = self._page, tab.words
        tab.shown = {}
        tab.editing = tab.scope = None
        return (
            self._heads.updates(conversation, tab)
            | self.answers(conversation, tab)
            | self.identity(conversation, tab)
            | settings_updates(page.settings, conversation, tab)
            | {
                page.composer: self._composer(tab, is_answering=is_answering),
                page.compose_tools: compose_tools_html(words, can_fetch=self._can_fetch),
                page.help: help_html(words),
                page.notice: "",
                page.panel: "",
                page.examples: gr.update(open=not conversation.turns, label=words("Examples")),
            }
        )

    def identity(self, conversation: Conversation, tab: Tab) -> Updates:
        """The hidden parts that say which conversation this is."""
        tab.conversation_id = conversation.id
        language = f'data-language="{tab.language}"'
        return {
            self._page.conversation_id: conversation.id,
            self._page.address: f'<span data-conversation="{conversation.id}" {language}></span>',
        }

    def arrangement(self, conversation: Conversation, tab: Tab) -> Updates:
        """After columns were added, removed or moved: all that stands at a place."""
        self._heads.fill(conversation)
        return self._heads.updates(conversation, tab) | self.answers(conversation, tab)

    def answers(self, conversation: Conversation, tab: Tab) -> Updates:
        """Texts, figures and buttons of all columns."""
        updates: Updates = {}
        for place in range(len(self._page.columns)):
            updates[self._page.columns[place].chat] = self._chat(conversation, place, tab)
            updates |= self._figures(conversation, place, tab)
        return updates

    def column(self, conversation: Conversation, place: int, tab: Tab) -> Updates:
        """Text, figures and buttons of one column."""
        updates = self._figures(conversation, place, tab)
        updates[self._page.columns[place].chat] = self._chat(conversation, place, tab)
        return updates

    def ended(self, conversation: Conversation, tab: Tab) -> Updates:
        """After the last answer has ended."""
        return self._written(conversation, tab) | {
            self._page.composer: self._composer(tab, is_answering=False)
        }

    def asked(self, conversation: Conversation, tab: Tab) -> Updates:
        """After a question was taken."""
        return self._written(conversation, tab) | {
            self._page.composer: self._composer(tab, is_answering=True, content={}),
            self._page.examples: gr.update(open=False),
        }

    def composed(self, tab: Tab, content: dict[str, Any], *, is_answering: bool) -> Updates:
        """The composer with other content; empty content clears it."""
        return {
            self._page.composer: self._composer(tab, is_answering=is_answering, content=content)
        }

    def composing(self, tab: Tab, *, is_answering: bool) -> Updates:
        """The composer with the same content, while answers are written or not."""
        return {self._page.composer: self._composer(tab, is_answering=is_answering)}

    def editing(self, tab: Tab) -> Updates:
        """Says that the next question takes the place of an earlier one."""
        if tab.editing is None:
            return self.notice("")
        words = tab.words
        cancel = escape(words("Cancel"))
        button = f'<button type="button" class="tool text" data-act="cancel-edit">{cancel}</button>'
        number = tab.editing + 1
        text = words("Editing question {number}: sending it begins a new branch.", number=number)
        return {self._page.notice: f'<div class="editing">{escape(text)}{button}</div>'}

    def settings_problem(self, text: str) -> Updates:
        """What is wrong in the settings panel; empty if nothing is."""
        html = f'<p class="error" role="alert">{escape(text)}</p>' if text else ""
        return {self._page.settings.problem: html}

    def notice(self, text: str) -> Updates:
        """A line above the composer; an empty text takes it away."""
        html = f'<div class="notice" role="alert">{escape(text)}</div>' if text else ""
        return {self._page.notice: html}

    def hint(self, text: str) -> Updates:
        """A line above the composer that is no refusal."""
        return {self._page.notice: f'<div class="notice hint" role="status">{escape(text)}</div>'}

    async def frames(self, run: Run, tab: Tab) -> AsyncGenerator[Updates]:
        """Updates of a run until it is over: of all columns that are due, in one frame.

        A run without news has an empty frame now and then: Gradio finds out that a tab was closed
        when there is something to send.
        """
        texts, figures = Sampler(TEXT_PACES), Sampler(FIGURE_PACES)
        differing, pace = Sampler(DIFFERENCE_PACES), FramePace()
        conversation = run.conversation
        frame_at, late = float("-inf"), 0.0
        while True:
            pacer = texts if conversation.reference is None else differing
            now, samples, is_over = time.monotonic(), self._samples(run), run.is_over
            waits = [sampler.seconds_until_due(samples, now=now) for sampler in (pacer, figures)]
            pending = [wait for wait in waits if wait is not None]
            if not pending:
                if is_over:
                    return
                await run.wait_for_change(_SIGN_SECONDS)
                if self._samples(run) == samples:
                    yield {}
                continue
            planned = max(now + min(pending), frame_at + pace.seconds)
            if planned > now and not is_over:
                await run.wait_for_end(planned - now)
                late = max(0.0, time.monotonic() - planned)
                continue
            updates: Updates = {}
            place = {lane: at for at, lane in enumerate(conversation.visible)}
            for lane in pacer.take_due(samples, now=now):
                if lane in place:
                    chat = self._page.columns[place[lane]].chat
                    updates[chat] = self._messages(conversation, lane, tab)
            for lane in figures.take_due(samples, now=now):
                if lane in place:
                    updates |= self._figures(conversation, place[lane], tab)
            if updates:
                frame_at = now
                yield updates
                pace.note(late + time.monotonic() - now)
                late = 0.0

    def _samples(self, run: Run) -> list[Sample]:
        """How each lane is; where answers are compared, a change of the reference changes all."""
        samples = run.samples()
        reference = run.conversation.reference
        if reference is None:
            return samples
        state = next((s.version for s in samples if s.column == reference), None)
        return [
            replace(sample, version=(sample.version, reference, state), has_ended=run.is_over)
            for sample in samples
        ]

    def _messages(self, conversation: Conversation, lane: int, tab: Tab) -> list[dict[str, Any]]:
        return chat_messages(conversation, lane, tab.words, self._differences)

    def _written(self, conversation: Conversation, tab: Tab) -> Updates:
        """`answers` without what only an empty column shows, which is dear: of a column in use."""
        updates: Updates = {}
        for place, lane in enumerate(conversation.visible):
            chat = self._page.columns[place].chat
            updates[chat] = self._messages(conversation, lane, tab)
            updates |= self._figures(conversation, place, tab)
        return updates

    def _chat(self, conversation: Conversation, place: int, tab: Tab) -> Component:
        lane = conversation.order[place]
        return gr.update(
            value=self._messages(conversation, lane, tab),
            placeholder=self._heads.card(conversation.columns[lane].model, tab.words),
        )

    def _figures(self, conversation: Conversation, place: int, tab: Tab) -> Updates:
        lane = conversation.order[place]
        answers = conversation.turns[-1].answers if conversation.turns else {}
        answer = answers.get(lane)
        figures = figures_html(answer, tab.words)
        if conversation.reference is not None:
            figures = self._agreement(conversation, answers, lane, tab) + figures
        is_last = bool(conversation.turns)
        parts = self._page.columns[place]
        tools = answer_tools_html(answer, place, tab.words, is_last=is_last)
        updates: Updates = {}
        for key, component, html in (
            (f"figures {place}", parts.figures, figures),
            # A button that is replaced under the pointer does not take the click.
            (f"answer tools {place}", parts.answer_tools, tools),
        ):
            if tab.shown.get(key) != html:
                tab.shown[key] = html
                updates[component] = html
        return updates

    def _agreement(
        self, conversation: Conversation, answers: dict[int, Answer], lane: int, tab: Tab
    ) -> str:
        reference = conversation.reference
        answer = answers.get(lane)
        other = None if reference is None else answers.get(reference)
        found = None
        if answer is not None and other is not None and answer.text and other.text:
            found = self._differences.between(answer, other)
        return agreement_html(found, is_reference=lane == reference, words=tab.words)

    def _composer(
        self, tab: Tab, *, is_answering: bool, content: dict[str, Any] | None = None
    ) -> Component:
        words = tab.words
        tab.is_answering = is_answering
        fields: dict[str, Any] = {
            "submit_btn": not is_answering,
            "stop_btn": is_answering,
            "placeholder": words("Ask all columns; drop images here"),
            "label": words("Question to all columns"),
        }
        if content is not None:
            fields["value"] = {"text": "", "files": []} | content
        return gr.update(**fields)
