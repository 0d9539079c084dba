"""The heads of the columns and of the page: what follows the fleet and not the conversation."""

from __future__ import annotations

from typing import Any

from webui.catalogue import default_columns
from webui.conversation import DEFAULT_COLUMNS, Conversation
from webui.language import Words
from webui.model_view import banner_html, card_html, choices_of, state_html
from webui.nav import nav_html
from webui.page import Component, Page, Tab
from webui.toolkit import gr
from webui.tools import head_html, lane_tools_html, tabs_html
from webui.watch import FleetWatch

# From component to its new value or `gr.update`; components that are not named stay as they are.
Updates = dict[Component, Any]


class Heads:
    """Tells each tab what has changed in the fleet since it was told last.

    Args:
        page: the components.
        watch: what is known of the fleet.
    """

    def __init__(self, page: Page, watch: FleetWatch) -> None:
        self._page = page
        self._watch = watch

    @property
    def problem(self) -> str | None:
        """Why the controller could not be asked, if it could not."""
        return self._watch.catalogue.problem

    def outputs(self) -> list[Component]:
        """The components that `updates` may name."""
        page = self._page
        parts = [
            part
            for column in page.columns
            for part in (column.box, column.model, column.state, column.chat)
        ]
        tools = [column.lane_tools for column in page.columns]
        return [*parts, *tools, page.nav, page.banner, page.head, page.tabs]

    def card(self, name: str | None, words: Words) -> str:
        """What a column without answers shows of its model."""
        return card_html(name, self._watch.catalogue, words)

    def arrange(self, conversation: Conversation) -> None:
        """Gives the columns the fleet's models, as long as nobody has chosen others."""
        if not conversation.is_arranged:
            current = [conversation.columns[lane].model for lane in conversation.order]
            names = default_columns(self._watch.catalogue, current, limit=DEFAULT_COLUMNS)
            conversation.arrange(names)

    def fill(self, conversation: Conversation) -> None:
        """Gives columns that were added models which no other column has, as far as they go."""
        shown = {conversation.columns[lane].model for lane in conversation.visible}
        offered = self._watch.catalogue.offered
        unused = [name for name in offered if name not in shown]
        for lane in conversation.visible:
            if conversation.columns[lane].model is None and unused:
                conversation.columns[lane].model = unused.pop(0)

    def have_news(self, conversation: Conversation, tab: Tab) -> bool:
        """Whether anything differs from what the tab was told."""
        views = self._views(conversation, tab)
        return any(tab.shown.get(key) != repr(fields) for key, (_, fields) in views.items())

    def updates(self, conversation: Conversation, tab: Tab) -> Updates:
        """What differs from what the tab was told; it counts as told then."""
        views = self._views(conversation, tab)
        now_shown = {key: repr(fields) for key, (_, fields) in views.items()}
        changed = [key for key, fields in now_shown.items() if tab.shown.get(key) != fields]
        tab.shown |= now_shown
        return {views[key][0]: gr.update(**views[key][1]) for key in changed}

    def _views(
        self, conversation: Conversation, tab: Tab
    ) -> dict[str, tuple[Component, dict[str, Any]]]:
        """Each part's component and fields, by the part's key."""
        page, catalogue = self._page, self._watch.catalogue
        self.arrange(conversation)
        words = tab.words
        views: dict[str, tuple[Component, dict[str, Any]]] = {
            "banner": (page.banner, {"value": banner_html(catalogue, words)}),
            "nav": (page.nav, {"value": nav_html(words, view="compare")}),
            "head": (page.head, {"value": head_html(conversation, words)}),
            "tabs": (page.tabs, {"value": tabs_html(conversation, words)}),
        }
        for number, column in enumerate(page.columns):
            name = conversation.column_at(number).model
            # Gradio's list breaks if it loses a choice while it is open, and nothing should slide
            # away under the pointer: what goes meanwhile stays until the list is closed.
            keep = tab.choices.get(number, []) if number in tab.open_lists else []
            choices = choices_of(catalogue, name, keep=keep, words=words)
            tab.choices[number] = choices
            views |= {
                f"box {number}": (column.box, {"visible": number < conversation.num_columns}),
                f"model {number}": (column.model, {"choices": choices, "value": name}),
                f"tools {number}": (
                    column.lane_tools,
                    {"value": lane_tools_html(conversation, number, words)},
                ),
                f"state {number}": (column.state, {"value": state_html(name, catalogue, words)}),
                f"card {number}": (column.chat, {"placeholder": self.card(name, words)}),
            }
        return views
