"""The drawer that says which keys do what."""

from __future__ import annotations

from html import escape

from webui.language import Words
from webui.settings_view import drawer_head


def help_html(words: Words) -> str:
    """Keys, and what one may not find by oneself."""
    keys = (
        ("Enter", words("send the question")),
        ("Shift + Enter", words("begin a new line")),
        ("Esc", words("close what is open, or stop all columns")),
        ("/", words("go to the question")),
        ("Alt + ←|Alt + →", words("go to the column before, or the next one")),
        ("Alt + 1 … 6", words("go to a column")),
        ("Alt + R", words("ask this column again")),
        ("Alt + C", words("copy the answer of this column")),
        ("Alt + N", words("begin a new chat")),
        ("Alt + S", words("open or close the settings")),
        ("Alt + U", words("add an image by its address")),
        ("?", words("open or close this help")),
    )
    rows = "".join(
        f"<div><dt>{_caps(key)}</dt><dd>{escape(meaning)}</dd></div>" for key, meaning in keys
    )
    hints = (
        words(
            "Images can be uploaded, pasted, dropped, fetched by address or photographed, in any "
            "turn."
        ),
        words("Hold the pointer over a figure to see what it means."),
        words("The address names this chat: it can be reopened, and others can read it."),
    )
    items = "".join(f"<li>{escape(hint)}</li>" for hint in hints)
    head = drawer_head(words("Keys and help"), words)
    return f'{head}<dl class="keys">{rows}</dl><ul class="hints">{items}</ul>'


def _caps(keys: str) -> str:
    """Each of the keys, between which a bar stands, as one is drawn."""
    return " ".join(f"<kbd>{escape(key)}</kbd>" for key in keys.split("|"))
