"""Who may use the page at all: everybody, those with a password, or those whom a proxy vouches for.

Raw ASGI in front of everything (but the health routes), so that no address is left open: Gradio's
own check leaves the page's other routes, and Gradio's static ones, to anybody.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from webui.person import cookie_of

_COOKIE = "paragone_session"
_KEY = "paragone.login"  # of the name in an ASGI scope
_OPEN = ("/health", "/ready", "/version")  # for whoever watches the process
_MAX_SESSIONS = 10_000
_MAX_FORM_BYTES = 4096


class LoginError(Exception):
    """The file of logins cannot be used; the message names it and the line."""


def read_logins(path: Path) -> dict[str, str]:
    """Passwords by name, of a file as LLaVA's and FastChat's ``--gradio-auth-path`` has it.

    ``name:password``, separated by commas or line ends.

    Raises:
        LoginError: it cannot be read, or an entry is no such pair.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise LoginError(f"--gradio-auth-path {path}: {exc}") from exc
    logins: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        for entry in filter(None, map(str.strip, line.split(","))):
            name, colon, password = entry.partition(":")
            if not (colon and name.strip() and password):
                # What is there is not repeated: it may be a password.
                raise LoginError(
                    f"--gradio-auth-path {path}: line {number}: expected name:password"
                )
            logins[name.strip()] = password
    if not logins:
        raise LoginError(f"--gradio-auth-path {path}: there is no name:password in it")
    return logins


def login_of(scope: Mapping[str, object]) -> str | None:
    """The name under which the sender of a request has logged in; None without logins."""
    name = scope.get(_KEY)
    return name if isinstance(name, str) else None


class HeaderLogin:
    """Lets in whom a reverse proxy names in a header; the proxy has to strip it from others.

    Args:
        app: what is behind.
        header: the header's name, such as ``X-Forwarded-User``.
        proxies: addresses or networks that may say so; the process's own machine if there are none.
    """

    def __init__(self, app: ASGIApp, *, header: str, proxies: Sequence[str]) -> None:
        self._app = app
        self._header = header
        self._networks = [
            ipaddress.ip_network(each, strict=False) for each in proxies or ("127.0.0.0/8", "::1")
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Notes the name, or refuses."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        name = Headers(scope=scope).get(self._header, "").strip()
        if not name or not self._is_proxy(scope):
            refusal = PlainTextResponse(
                "This page is for those whom its proxy has logged in: open it by the proxy's "
                "address.",
                status_code=401,
            )
            await refusal(scope, receive, send)
            return
        scope[_KEY] = name
        await self._app(scope, receive, send)

    def _is_proxy(self, scope: Scope) -> bool:
        # The peer of the connection, which no header can pretend to be: what a proxy says of its
        # client is read further in.
        peer = scope.get("client") or ("", 0)
        try:
            address = ipaddress.ip_address(peer[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class PasswordLogin:
    """Asks for a name and a password, once a browser.

    Args:
        app: what is behind.
        logins: passwords by name.
    """

    def __init__(self, app: ASGIApp, *, logins: Mapping[str, str]) -> None:
        self._app = app
        self._logins = dict(logins)
        self._sessions: OrderedDict[str, str] = OrderedDict()  # names by token, oldest first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets in who has logged in; shows others the form."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        name = self._sessions.get(cookie_of(Headers(scope=scope), _COOKIE))
        if name is not None and scope["path"] != "/logout":
            scope[_KEY] = name
            await self._app(scope, receive, send)
            return
        await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        if path == "/login" and request.method == "POST":
            return await self._log_in(request)
        if path == "/logout":
            self._sessions.pop(cookie_of(request.headers, _COOKIE), None)
            return _form("You have been logged out.", status=200)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return _form("", status=401, root=_up(path))
        return PlainTextResponse("Log in first: open the page in a browser.", status_code=401)

    async def _log_in(self, request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _MAX_FORM_BYTES:
                return PlainTextResponse("This is no login.", status_code=413)
        fields = parse_qs(body.decode("utf-8", "replace"))
        name, password = (fields.get(key, [""])[0] for key in ("username", "password"))
        # Compared whether or not the name is known, so that the time tells neither.
        expected = self._logins.get(name, "")
        is_right = hmac.compare_digest(expected.encode(), password.encode())
        if not (is_right and name in self._logins):
            return _form("The name or the password is wrong.", status=401)
        token = secrets.token_urlsafe(32)
        self._sessions[token] = name
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        response = RedirectResponse("./", status_code=303)
        response.set_cookie(
            _COOKIE, token, httponly=True, samesite="lax", secure=request.url.scheme == "https"
        )
        return response


def _up(path: str) -> str:
    """From an address to the page's root, relatively."""
    return "../" * (path.count("/") - 1) or "./"


def _form(message: str, *, status: int, root: str = "./") -> Response:
    note = f'<p role="alert">{escape(message)}</p>' if message else ""
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Paragone</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>:root{color-scheme:light dark}body{font:16px system-ui,sans-serif;display:grid;"
        "min-height:90vh;place-items:center}form{display:grid;gap:12px;width:280px}"
        "input,button{font:inherit;padding:8px}</style></head><body><main>"
        f'<form method="post" action="{root}login"><h1>Paragone</h1>{note}'
        '<label>Name <input name="username" autocomplete="username" required autofocus></label>'
        '<label>Password <input name="password" type="password" '
        'autocomplete="current-password" required></label>'
        "<button>Log in</button></form></main></body></html>",
        status_code=status,
        headers={"cache-control": "no-store"},
    )
