"""The settings panel as a tab shows it: the chat's settings, or those of one column."""

from __future__ import annotations

from html import escape
from typing import Any

from controller.protocol.chat import ImageProcessMode
from webui.conversation import Conversation
from webui.language import Words
from webui.page import Component, SettingsPanel, Tab
from webui.toolkit import gr

_INHERITED = ""  # the image mode of a column that has none of its own


def settings_updates(
    panel: SettingsPanel, conversation: Conversation, tab: Tab
) -> dict[Component, Any]:
    """The whole panel: what it is about, labels, values, and what an empty field stands for."""
    words = tab.words
    lane = tab.scope
    chat = conversation.sampling.model_dump(mode="json")
    own = chat if lane is None else conversation.columns[lane].overrides.model_dump(mode="json")
    updates: dict[Component, Any] = {}
    labels = _labels(words)
    for (name, (label, info)), component in zip(labels.items(), panel.values, strict=True):
        if name == "image_process_mode":
            modes = [(mode.value, mode.value) for mode in ImageProcessMode]
            inherited = (words("as the chat"), _INHERITED)
            updates[component] = gr.update(
                label=label,
                info=info,
                choices=modes if lane is None else [inherited, *modes],
                value=own[name] or _INHERITED,
            )
            continue
        updates[component] = gr.update(
            label=label,
            info=info,
            value=_text(own[name]),
            placeholder="" if lane is None else _text(chat[name]),
        )
    return updates | {
        panel.head: _head(conversation, tab),
        panel.problem: "",
        panel.same_seed: gr.update(
            label=words("Same seed in all columns, where answers are drawn"),
            value=conversation.is_same_seed,
        ),
        panel.sequential: gr.update(
            label=words("One column after another, for a single small GPU"),
            value=conversation.is_sequential,
        ),
    }


def _labels(words: Words) -> dict[str, tuple[str, str]]:
    """Label, and what an empty field means, by the names of `Sampling`."""
    return {
        "temperature": (words("Temperature"), words("0: greedy")),
        "top_p": (words("Top-p"), words("1: off")),
        "top_k": (words("Top-k"), words("empty: the checkpoint's")),
        "max_tokens": (words("Max tokens"), words("empty: as many as fit")),
        "seed": (words("Seed"), words("empty: a new one")),
        "system_prompt": (words("System prompt"), words("empty: the checkpoint's own")),
        "image_process_mode": (words("Image mode"), words("default: the checkpoint's")),
        "chat_template": (words("Chat template"), words("empty: the checkpoint's own")),
    }


def _head(conversation: Conversation, tab: Tab) -> str:
    words = tab.words
    scopes = [("all", words("All columns"), tab.scope is None)]
    for place, lane in enumerate(conversation.visible):
        model = conversation.columns[lane].model or words("no model")
        scopes.append((str(place), f"{place + 1} {model}", tab.scope == lane))
    buttons = "".join(
        f'<button type="button" data-act="scope" data-value="{value}" '
        f'aria-pressed="{str(is_shown).lower()}">{escape(label)}</button>'
        for value, label, is_shown in scopes
    )
    note = words(
        "What a column has of its own takes the place of the chat's. Empty fields are the chat's."
    )
    explained = "" if tab.scope is None else f'<p class="hint">{escape(note)}</p>'
    return (
        drawer_head(words("Settings"), words)
        + f'<div class="scopes" role="group">{buttons}</div>{explained}'
    )


def drawer_head(title: str, words: Words) -> str:
    """The first line of a drawer, with the button that closes it."""
    close = escape(words("Close"))
    return (
        f'<header class="drawer-head"><h2>{escape(title)}</h2>'
        f'<button type="button" class="tool icon-close" data-do="close" data-value="" '
        f'aria-label="{close}" title="{close}"></button></header>'
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
