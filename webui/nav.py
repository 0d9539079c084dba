"""The links between the views of the page."""

from __future__ import annotations

from html import escape

from webui.language import Words

# Relative, so that the page may lie under any path of a proxy.
_VIEWS = (
    ("compare", "./"),
    ("battle", "./battle"),
    ("leaderboard", "./leaderboard"),
    ("history", "./history"),
    ("cluster", "./cluster"),
)


def nav_html(words: Words, *, view: str) -> str:
    """The links between the views."""
    names = {
        "compare": words("Compare"),
        "battle": words("Battle"),
        "leaderboard": words("Leaderboard"),
        "history": words("History"),
        "cluster": words("Cluster"),
    }
    links = "".join(
        f'<a href="{address}"{" aria-current=page" if name == view else ""}>'
        f"{escape(names[name])}</a>"
        for name, address in _VIEWS
    )
    return f'<nav class="views" aria-label="{escape(words("Views"))}">{links}</nav>'
