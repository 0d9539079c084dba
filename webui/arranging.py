"""What a tab's columns hold: models and settings as people choose them, and what a fleet offers."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from webui.conversation import Conversation
from webui.heads import Heads
from webui.page import Page, Tab
from webui.questions import RefusedError, read_overrides, read_sampling
from webui.settings_view import settings_updates
from webui.store import ConversationStore
from webui.toolkit import gr
from webui.view import View

Result = Any  # `Updates`, or ``gr.skip()``, which has no type that a checker can see


class Arranging:
    """The handlers of columns and settings.

    Args:
        page: the components.
        view: what tabs show.
        store: where conversations are kept.
        heads: of the columns; they follow the fleet.
    """

    def __init__(self, page: Page, *, view: View, store: ConversationStore, heads: Heads) -> None:
        self._page = page
        self._view = view
        self._store = store
        self._heads = heads

    def connect(self) -> None:
        """Ties the handlers to the components' events; call it inside ``gr.Blocks``."""
        page = self._page
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        where = [page.conversation_id, page.tab]
        settings = page.settings.inputs()
        heads = self._heads.outputs()
        # A browser marks every output of an event as pending and done: the heads are named only
        # once one of them has changed.
        page.timer.tick(self.look, where, page.news, **quick)
        page.news.change(self.refresh, where, heads, **quick)
        for component in settings:
            component.input(
                self.set_settings,
                [*where, *settings],
                [page.settings.problem, *heads],
                trigger_mode="always_last",
                **quick,
            )
        for place, column in enumerate(page.columns):
            column.model.input(
                partial(self.set_model, place),
                [*where, column.model],
                list(dict.fromkeys([*heads, *self._view.answering(), *page.settings.outputs()])),
                # The choices change under the server's copy of the component; the name is
                # checked by the controller anyway.
                preprocess=False,
                **quick,
            )
            column.model.focus(partial(self.open_list, place), [page.tab], None, **quick)
            column.model.blur(partial(self.close_list, place), [page.tab], None, **quick)

    async def look(self, conversation_id: str, tab: Tab) -> Result:
        """Once a second or so: whether the fleet has changed since this tab was told."""
        conversation = await self._store.get(conversation_id)
        if conversation is None or not self._heads.have_news(conversation, tab):
            return gr.skip()
        return secrets.token_hex(8)

    async def refresh(self, conversation_id: str, tab: Tab) -> Result:
        """What has changed in the fleet since this tab was told."""
        conversation = await self._store.get(conversation_id)
        if conversation is None:
            return gr.skip()
        return self._heads.updates(conversation, tab) or gr.skip()

    async def open_list(self, place: int, tab: Tab) -> None:
        """Notes that the list of models of a column may be open: it must not lose a choice."""
        tab.open_lists.add(place)

    async def close_list(self, place: int, tab: Tab) -> None:
        """From now on the list may lose the choices whose models are gone."""
        tab.open_lists.discard(place)

    async def set_model(self, place: int, conversation_id: str, tab: Tab, name: object) -> Result:
        """Gives a column another model, from its next answer on."""
        conversation = await self._store.get(conversation_id)
        if conversation is None or not isinstance(name, str) or not name:
            return gr.skip()
        if is_own(conversation, tab):
            conversation.column_at(place).model = name
            conversation.is_arranged = True
            await self._store.put(conversation)
        updates = self._heads.updates(conversation, tab)
        updates |= settings_updates(self._page.settings, conversation, tab)
        return updates | self._view.column(conversation, place, tab)

    async def set_settings(self, conversation_id: str, tab: Tab, *values: object) -> Result:
        """Keeps the settings as they are typed; a wrong one is named in the panel."""
        conversation = await self._store.get(conversation_id)
        if conversation is None or not is_own(conversation, tab):
            return gr.skip()
        try:
            apply_settings(conversation, tab, values)
        except RefusedError as exc:
            return self._view.settings_problem(str(exc))
        await self._store.put(conversation)
        return self._view.settings_problem("") | self._heads.updates(conversation, tab)


def apply_settings(conversation: Conversation, tab: Tab, values: tuple[object, ...]) -> None:
    """Takes over what the panel holds: for the chat, or for the column that it is about.

    Raises:
        RefusedError: a value is wrong.
    """
    same_seed, sequential, *fields = values
    conversation.is_same_seed = bool(same_seed)
    conversation.is_sequential = bool(sequential)
    if tab.scope is None:
        conversation.sampling = read_sampling(fields)
    else:
        conversation.columns[tab.scope].overrides = read_overrides(fields)


def is_own(conversation: Conversation, tab: Tab) -> bool:
    """Whether a conversation belongs to the person behind a tab."""
    return conversation.owner == tab.person
