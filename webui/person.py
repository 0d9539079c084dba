"""Whose chat it is: a login's name where there is one, else a mark that this server gave a browser.

The mark is random, lies in a cookie that scripts cannot read, and says nothing about the person.
"""

from __future__ import annotations

import re
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "paragone_person"
_SANE = re.compile(r"[A-Za-z0-9_-]{22}")
_YEAR_SECONDS = 365 * 86_400


class PageRequest(Protocol):
    """What Gradio tells of a request."""

    username: str | None
    cookies: dict[str, str]


def person_of(request: PageRequest) -> str:
    """The name under which this person's chats are kept; empty if the browser takes no cookies."""
    if request.username:
        return f"login:{request.username}"
    mark = request.cookies.get(COOKIE, "")
    return f"browser:{mark}" if _SANE.fullmatch(mark) else ""


class PersonCookie:
    """Gives each browser its mark. Raw ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds the cookie to a response whose request had none."""
        if scope["type"] != "http" or _SANE.fullmatch(cookie_of(Headers(scope=scope), COOKIE)):
            await self._app(scope, receive, send)
            return
        is_safe = scope["scheme"] == "https"

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = (
                    f"{COOKIE}={secrets.token_urlsafe(16)}; Path=/; Max-Age={_YEAR_SECONDS}; "
                    f"HttpOnly; SameSite=Lax"
                )
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.append("set-cookie", cookie + ("; Secure" if is_safe else ""))
            await send(message)

        await self._app(scope, receive, send_with_cookie)


def cookie_of(headers: Headers, name: str) -> str:
    """A cookie that came with a request; empty where there is none, or none that can be read."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value
