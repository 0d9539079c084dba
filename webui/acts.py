"""What the page's own small buttons do (`webui.tools`): one act for each, named in a table.

page.js writes an act into a hidden textbox as JSON; nothing in it is trusted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webui.answer import Answer, Feedback, Rating
from webui.conversation import MAX_COLUMNS, Conversation
from webui.feedback_view import MAX_NOTE, REASONS
from webui.heads import Updates
from webui.page import Page, Tab
from webui.panels import Panels
from webui.questions import RefusedError, another_answer
from webui.runs import RunRegistry
from webui.settings_view import settings_updates
from webui.store import ConversationStore
from webui.uploads import UploadLimits, check_images
from webui.view import View


class Act(BaseModel):
    """What was pressed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    act: str
    place: int | None = Field(default=None, ge=0, lt=MAX_COLUMNS)  # of the column it stands in
    value: str = Field(default="", max_length=MAX_NOTE)


@dataclass(frozen=True, slots=True)
class Pressed:
    """An act, on what, and in which tab."""

    act: Act
    conversation: Conversation
    tab: Tab
    composed: dict[str, Any]

    @property
    def place(self) -> int:
        """The column's place.

        Raises:
            RefusedError: the button stands in no column that is shown.
        """
        if self.act.place is None or self.act.place >= self.conversation.num_columns:
            raise RefusedError("There is no such column any more.")
        return self.act.place

    @property
    def lane(self) -> int:
        """The column's lane."""
        return self.conversation.order[self.place]

    @property
    def answer(self) -> Answer:
        """The column's last answer.

        Raises:
            RefusedError: it was not asked.
        """
        turns = self.conversation.turns
        answer = turns[-1].answers.get(self.lane) if turns else None
        if answer is None:
            raise RefusedError("This column was not asked yet.")
        return answer


class Acts:
    """Does what is pressed.

    Args:
        page: the components.
        view: what tabs show.
        store: where conversations are kept.
        runs: the questions under way.
        panels: the drawer.
        limits: of uploads.
        note_rating: told of each answer that was rated: its conversation and lane.
    """

    def __init__(
        self,
        page: Page,
        view: View,
        *,
        store: ConversationStore,
        runs: RunRegistry,
        panels: Panels,
        limits: UploadLimits,
        note_rating: Callable[[Conversation, int], None],
    ) -> None:
        self._page = page
        self._view = view
        self._store = store
        self._runs = runs
        self._panels = panels
        self._limits = limits
        self._note_rating = note_rating
        # Those that change nothing are for whoever may read the chat.
        self._reading: dict[str, Callable[[Pressed], Awaitable[Updates]]] = {
            "request": self._request,
            "sees": self._sees,
            "scope": self._scope,
            "settings": self._settings,
        }
        self._writing: dict[str, Callable[[Pressed], Awaitable[Updates]]] = {
            "columns": self._columns,
            "left": self._left,
            "right": self._right,
            "remove": self._remove,
            "reference": self._reference,
            "stop": self._stop,
            "retry": self._retry,
            "continue": self._continue,
            "up": self._rate,
            "down": self._rate,
            "flag": self._rate,
            "note": self._note,
            "reason": self._reason,
            "write-note": self._write_note,
            "edit": self._edit,
            "cancel-edit": self._cancel_edit,
        }

    async def perform(self, pressed: Pressed, *, is_own: bool) -> Updates:
        """Does it.

        Raises:
            RefusedError: it cannot be done; the message says why.
            BusyError: the server has enough to do.
            UploadError: an image of the composer cannot be used.
            StoreError: it cannot be kept.
        """
        name = pressed.act.act
        if name in self._reading:
            return await self._reading[name](pressed)
        if name not in self._writing:
            raise RefusedError(f"This page knows no {name[:40]!r}: reload it.")
        if not is_own:
            raise RefusedError(
                "This chat is somebody else's and can only be read. Send a question to go on in a "
                "copy of your own."
            )
        updates = await self._writing[name](pressed)
        await self._store.put(pressed.conversation)
        return updates

    async def _columns(self, pressed: Pressed) -> Updates:
        try:
            number = int(pressed.act.value)
        except ValueError as exc:
            raise RefusedError(f"{pressed.act.value!r} is no number of columns.") from exc
        pressed.conversation.num_columns = min(MAX_COLUMNS, max(1, number))
        return self._rearranged(pressed)

    async def _left(self, pressed: Pressed) -> Updates:
        pressed.conversation.swap(pressed.lane, step=-1)
        return self._rearranged(pressed)

    async def _right(self, pressed: Pressed) -> Updates:
        pressed.conversation.swap(pressed.lane, step=1)
        return self._rearranged(pressed)

    async def _remove(self, pressed: Pressed) -> Updates:
        lane = pressed.lane
        run = self._runs.get(pressed.conversation.id)
        if run is not None:
            run.stop(lane)
        pressed.conversation.remove_column(lane)
        return self._rearranged(pressed)

    def _rearranged(self, pressed: Pressed) -> Updates:
        conversation, tab = pressed.conversation, pressed.tab
        conversation.is_arranged = True
        if conversation.reference not in conversation.visible:
            conversation.reference = None
        if tab.scope not in conversation.visible:
            tab.scope = None
        return self._view.arrangement(conversation, tab) | settings_updates(
            self._page.settings, conversation, tab
        )

    async def _reference(self, pressed: Pressed) -> Updates:
        conversation, lane = pressed.conversation, pressed.lane
        conversation.reference = None if conversation.reference == lane else lane
        run = self._runs.get(conversation.id)
        if run is not None:
            run.announce()
        return self._view.arrangement(conversation, pressed.tab)

    async def _stop(self, pressed: Pressed) -> Updates:
        run = self._runs.get(pressed.conversation.id)
        if run is not None:
            run.stop(pressed.lane)  # its stream says so in the page
            return {}
        # Nothing runs, whatever this tab believes: it may have missed the end.
        return self._view.ended(pressed.conversation, pressed.tab)

    async def _retry(self, pressed: Pressed) -> Updates:
        conversation, lane = pressed.conversation, pressed.lane
        if not conversation.turns:
            raise RefusedError("This column was not asked yet.")
        run = self._runs.get(conversation.id)
        if run is None:
            self._runs.check_free(conversation.id)
        answer = another_answer(conversation, lane)
        before = conversation.turns[-1].answers.get(lane)
        if before is not None:
            if run is not None:
                run.stop(lane)
            before.stop()
            await self._store.put(conversation)  # what it had said stays on the record
        conversation.turns[-1].answers[lane] = answer
        return self._asked_again(pressed)

    async def _continue(self, pressed: Pressed) -> Updates:
        conversation, answer = pressed.conversation, pressed.answer
        if not answer.can_continue:
            raise RefusedError("This answer is complete, or has no text to go on from.")
        if self._runs.get(conversation.id) is None:
            self._runs.check_free(conversation.id)
        answer.resume(now=time.monotonic())
        return self._asked_again(pressed)

    def _asked_again(self, pressed: Pressed) -> Updates:
        """A run under way takes the answer along; else the caller starts one for it."""
        run = self._runs.get(pressed.conversation.id)
        if run is not None:
            run.ask(pressed.lane)
        updates = self._view.column(pressed.conversation, pressed.place, pressed.tab)
        return updates | self._view.composing(pressed.tab, is_answering=True)

    async def _rate(self, pressed: Pressed) -> Updates:
        rating = Rating(pressed.act.act)
        before = pressed.answer.feedback
        if before.rating is rating:  # a second press takes it back
            return await self._judged(pressed, Feedback(note=before.note))
        updates = await self._judged(pressed, Feedback(rating=rating, note=before.note))
        if rating is not Rating.UP:  # what is wrong with it is worth asking
            updates |= await self._note(pressed)
        return updates

    async def _reason(self, pressed: Pressed) -> Updates:
        before, reason = pressed.answer.feedback, pressed.act.value
        if reason not in REASONS[before.rating]:
            raise RefusedError("Rate the answer first.")
        reasons = [each for each in before.reasons if each != reason]
        if reason not in before.reasons:
            reasons.append(reason)
        updates = await self._judged(pressed, Feedback(before.rating, tuple(reasons), before.note))
        return updates | await self._note(pressed)

    async def _write_note(self, pressed: Pressed) -> Updates:
        before = pressed.answer.feedback
        note = pressed.act.value.strip()
        return await self._judged(pressed, Feedback(before.rating, before.reasons, note))

    async def _judged(self, pressed: Pressed, feedback: Feedback) -> Updates:
        answer = pressed.answer
        if not answer.has_ended:
            raise RefusedError("This answer is still being written.")
        conversation = pressed.conversation
        await self._store.judge(conversation, answer, feedback, person=pressed.tab.person)
        self._note_rating(conversation, pressed.lane)
        return self._view.column(conversation, pressed.place, pressed.tab)

    async def _note(self, pressed: Pressed) -> Updates:
        html = self._panels.feedback(pressed.conversation, pressed.place, pressed.tab.words)
        return {self._page.panel: html}

    async def _request(self, pressed: Pressed) -> Updates:
        words = pressed.tab.words
        html = await self._panels.request(pressed.conversation, pressed.place, words)
        return {self._page.panel: html}

    async def _sees(self, pressed: Pressed) -> Updates:
        files = [str(path) for path in pressed.composed.get("files") or []]
        checked = await asyncio.to_thread(check_images, files, self._limits)
        images = await self._store.keep_images(checked)
        html = await self._panels.vision(
            pressed.conversation,
            pressed.place,
            str(pressed.composed.get("text") or ""),
            images,
            pressed.tab.words,
        )
        return {self._page.panel: html}

    async def _settings(self, pressed: Pressed) -> Updates:
        pressed.tab.scope = pressed.lane
        return settings_updates(self._page.settings, pressed.conversation, pressed.tab)

    async def _scope(self, pressed: Pressed) -> Updates:
        value, visible = pressed.act.value, pressed.conversation.visible
        is_place = value.isdecimal() and int(value) < len(visible)
        pressed.tab.scope = visible[int(value)] if is_place else None
        return settings_updates(self._page.settings, pressed.conversation, pressed.tab)

    async def _edit(self, pressed: Pressed) -> Updates:
        turns, value = pressed.conversation.turns, pressed.act.value
        if not value.isdecimal() or int(value) >= len(turns):
            raise RefusedError("There is no such question.")
        pressed.tab.editing = int(value)
        turn = turns[int(value)]
        content = {"text": turn.text, "files": [str(image.path) for image in turn.images]}
        is_answering = self._runs.get(pressed.conversation.id) is not None
        return self._view.editing(pressed.tab) | self._view.composed(
            pressed.tab, content, is_answering=is_answering
        )

    async def _cancel_edit(self, pressed: Pressed) -> Updates:
        pressed.tab.editing = None
        is_answering = self._runs.get(pressed.conversation.id) is not None
        return self._view.notice("") | self._view.composed(
            pressed.tab, {}, is_answering=is_answering
        )


def read_act(written: str) -> Act | None:
    """What page.js wrote; None if it is no act."""
    try:
        return Act.model_validate_json(written)
    except ValidationError:
        return None
