"""The frame of the plain views (history, battle, leaderboard, cluster): head, navigation, language.

They are documents that the server writes whole, with a few lines of script each, and not Gradio's
components: what a browser is told of a battle can then be read in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse

from controller.protocol.errors import PermissionDeniedError
from webui.language import Words, language_of
from webui.login import login_of
from webui.nav import nav_html
from webui.person import person_of

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks for a view, and in which language."""

    person: str  # empty if the browser takes no cookies
    words: Words


@dataclass(slots=True)
class _Asking:
    username: str | None
    cookies: dict[str, str]


def read_asset(name: str) -> str:
    """A file of the assets."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def reader_of(request: Request) -> Reader:
    """Who sent a request."""
    asking = _Asking(login_of(request.scope), request.cookies)
    asked = request.query_params.get("lang") or request.cookies.get("paragone_language")
    language = language_of(asked, request.headers.get("accept-language", ""))
    return Reader(person_of(asking), Words(language))


def refuse_other_sites(request: Request) -> None:
    """For what changes something: no other site may press the button.

    The cookie is not sent along from other sites; a login that a proxy vouches for would be.

    Raises:
        PermissionDeniedError: the browser says that another site asks.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise PermissionDeniedError("Another site may not do this here: open the page itself.")


def document(
    reader: Reader, *, view: str, title: str, body: str, scripts: Sequence[str] = ()
) -> HTMLResponse:
    """A whole page.

    Args:
        reader: for whom.
        view: which entry of the navigation this is.
        title: of the page, escaped here.
        body: HTML.
        scripts: names of files in the assets.
    """
    words = reader.words
    style, common = read_asset("views.css"), read_asset("views.js")
    own = "".join(map(read_asset, scripts))
    html = (
        f'<!doctype html><html lang="{words.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · Paragone</title><style>{style}</style>"
        f'<link rel="icon" href="./favicon.ico"><script>{common}</script></head>'
        f'<body data-view="{view}"><header><a class="brand" href="./">Paragone</a>'
        f"{nav_html(words, view=view)}</header>"
        f"<main><h1>{escape(title)}</h1>{body}</main><script>{own}</script></body></html>"
    )
    return HTMLResponse(html, headers={"cache-control": "no-store"})
