"""What the Compare page does: opens, and asks.

One stage event puts the question into the conversation, then one generator streams all columns
(`webui.streams`): several generators on one trigger would run one after another in a browser. What
the small buttons do is in `webui.acts`, what columns hold in `webui.arranging`, what is shown in
`webui.view`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from webui.acts import Acts, Pressed, read_act
from webui.arranging import Result, apply_settings, is_own
from webui.conversation import Conversation
from webui.deep_link import DeepLink
from webui.gallery import Gallery
from webui.heads import Heads, Updates
from webui.language import language_of
from webui.moderation import Moderate
from webui.page import Component, Page, Tab
from webui.person import person_of
from webui.questions import RefusedError, read_question
from webui.runs import BusyError, RunRegistry
from webui.store import ConversationStore, StoreError
from webui.streams import Streams, open_answers
from webui.toolkit import gr
from webui.uploads import UploadError, UploadLimits
from webui.view import View

_REFUSALS = (RefusedError, BusyError, UploadError, StoreError)


class Compare:
    """The handlers of the page.

    Args:
        page: the components.
        view: what tabs show.
        acts: what the small buttons do.
        streams: of the answers.
        store: where conversations are kept.
        runs: the questions under way.
        heads: of the columns; they follow the fleet.
        gallery: the examples.
        examples_folder: where their images lie.
        limits: of uploads.
        moderate: the operator's say on each question.
    """

    def __init__(
        self,
        page: Page,
        *,
        view: View,
        acts: Acts,
        streams: Streams,
        store: ConversationStore,
        runs: RunRegistry,
        heads: Heads,
        gallery: Gallery,
        examples_folder: Path,
        limits: UploadLimits,
        moderate: Moderate,
    ) -> None:
        self._page = page
        self._view = view
        self._acts = acts
        self._streams = streams
        self._store = store
        self._runs = runs
        self._heads = heads
        self._gallery = gallery
        self._examples_folder = examples_folder
        self._limits = limits
        self._moderate = moderate

    def connect(self, demo: Component) -> None:
        """Ties the handlers to the components' events; call it inside ``gr.Blocks``."""
        page, view, streams = self._page, self._view, self._streams
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        streaming = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,  # bounded by the run registry, which can say so
            "trigger_mode": "multiple",  # one that shows a run must not keep the next one out
        }
        where = [page.conversation_id, page.tab]
        settings = page.settings.inputs()
        answering, everything = view.answering(), view.all()
        demo.load(self.open_page, [page.tab], everything, **quick).then(
            streams.follow, where, answering, **streaming
        )
        page.composer.submit(
            self.ask, [*where, page.composer, *settings], everything, **quick
        ).then(streams.answer, where, answering, **streaming)
        page.composer.stop(streams.stop_all, where, answering, **quick)
        page.act.change(
            self.act,
            [*where, page.act, page.composer, *settings],
            everything,
            trigger_mode="multiple",
            **quick,
        ).then(streams.answer, where, answering, **streaming)

    async def open_page(self, tab: Tab, request: gr.Request) -> Updates:
        """Shows the conversation that the address names, or a new one."""
        query = request.query_params
        asked_language = query.get("lang") or request.cookies.get("paragone_language")
        tab.language = language_of(asked_language, request.headers.get("accept-language", ""))
        tab.person = person_of(request)
        named = query.get("c", "")
        notice = ""
        try:
            conversation = await self._store.get(named)
        except StoreError as exc:
            conversation, notice = None, str(exc)
        composed: dict[str, Any] = {}
        if conversation is None:
            if named and not notice:
                notice = tab.words(
                    "The chat of this address is no longer kept: it was deleted, or made room for "
                    "newer ones. This is a new one."
                )
            link = DeepLink.read(query)
            conversation = link.conversation(owner=tab.person)
            composed, notice = link.composed, notice or link.problem
            await self._store.put(conversation)
        is_answering = self._runs.get(conversation.id) is not None
        updates = self._view.everything(conversation, tab, is_answering=is_answering)
        if composed:
            updates |= self._view.composed(tab, composed, is_answering=is_answering)
        if notice:
            updates |= self._view.notice(notice)
        elif not is_own(conversation, tab):
            updates |= self._view.hint(
                tab.words(
                    "This chat is somebody else's and can only be read. Send a question to go on "
                    "in a copy of your own."
                )
            )
        return updates

    async def act(
        self,
        conversation_id: str,
        tab: Tab,
        written: str,
        composed: dict[str, Any] | None,
        *values: object,
    ) -> Result:
        """Does what one of our own buttons stands for."""
        act = read_act(written)
        conversation = await self._store.get(conversation_id)
        if act is None or conversation is None:
            return gr.skip()
        if act.act == "new":
            return await self._new_chat(conversation, tab)
        if act.act == "example":
            return self._pick_example(act.value, tab, conversation)
        is_theirs = is_own(conversation, tab)
        pressed = Pressed(act, conversation, tab, composed or {})
        try:
            if is_theirs and act.act in ("retry", "continue", "sees"):
                apply_settings(conversation, tab, values)  # what is typed may be on its way
            updates = await self._acts.perform(pressed, is_own=is_theirs)
        except _REFUSALS as exc:
            return self._view.notice(tab.words.message(str(exc)))
        return updates or gr.skip()

    async def ask(
        self,
        conversation_id: str,
        tab: Tab,
        composed: dict[str, Any],
        *values: object,
    ) -> Updates:
        """Takes the question into the conversation, or says why not and leaves it composed."""
        updates: Updates = self._view.notice("")
        conversation = await self._store.get(conversation_id)
        try:
            if conversation is None:
                # Deleted, or it made room for others; the question itself can still be answered.
                conversation = Conversation(owner=tab.person)
                self._heads.arrange(conversation)
                updates |= self._view.identity(conversation, tab)
                updates |= self._view.hint(
                    tab.words("The earlier turns are no longer kept; a new chat began.")
                )
            elif tab.editing is not None:
                conversation = conversation.branched(tab.editing)
            elif not is_own(conversation, tab):
                conversation = conversation.branched(len(conversation.turns))
            is_branch = conversation.id != conversation_id
            conversation.owner = tab.person
            apply_settings(conversation, tab, values)
            turn = await read_question(
                composed, conversation, self._limits, problem=self._heads.problem
            )
            await self._moderate(turn)
            self._runs.check_free(conversation.id)
            turn.images = await self._store.keep_images(turn.images)
            for answer in open_answers(conversation):
                answer.stop()  # asked by a tab that was closed before its stream began
            conversation.turns.append(turn)
            conversation.is_arranged = True
            await self._store.put(conversation)
        except _REFUSALS as exc:
            return self._view.notice(tab.words.message(str(exc)))
        if is_branch:
            tab.editing = None
            updates |= self._view.identity(conversation, tab)
            updates |= self._heads.updates(conversation, tab)
        return updates | self._view.asked(conversation, tab)

    async def _new_chat(self, old: Conversation, tab: Tab) -> Updates:
        """An empty conversation over the same columns; what still runs is stopped."""
        run = self._runs.get(old.id)
        if run is not None and is_own(old, tab):
            run.stop_all()
        conversation = old.continued()
        conversation.owner = tab.person
        try:
            await self._store.put(conversation)
        except StoreError as exc:
            return self._view.notice(tab.words.message(str(exc)))
        updates = self._view.everything(conversation, tab, is_answering=False)
        return updates | self._view.composed(tab, {}, is_answering=False)

    def _pick_example(self, picked: str, tab: Tab, conversation: Conversation) -> Result:
        """Puts an example into the composer; ``picked`` is the number of image and of prompt."""
        image_number, _, prompt_number = picked.partition(".")
        try:
            example = self._gallery.examples[int(image_number)]
            prompt = example.prompts[int(prompt_number)]
        except (ValueError, IndexError):
            return gr.skip()  # not from our page's buttons
        content = {"text": prompt.prompt, "files": [str(self._examples_folder / example.image)]}
        is_answering = self._runs.get(conversation.id) is not None
        composed = self._view.composed(tab, content, is_answering=is_answering)
        return composed | self._view.notice("")
