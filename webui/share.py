"""``--share``: a public address by Gradio's tunnel, as LLaVA's page and FastChat's have it.

A program of Gradio's (frpc) holds a connection to one of its servers, which forwards what comes to
``https://SOMETHING.gradio.live`` for up to a week. It needs the internet; the page itself does not.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable

import gradio.networking
import httpx
from gradio import tunneling
from gradio.exceptions import ChecksumMismatchError, ShareCertificateWriteError

_log = logging.getLogger(__name__)

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to connect instead
# What Gradio's tunnel raises: no server, no program, a program that ends, a folder it cannot use.
_FAILURES = (
    RuntimeError,
    ValueError,
    OSError,
    httpx.HTTPError,
    ChecksumMismatchError,
    ShareCertificateWriteError,
)

# Given this page's host and port, a secret name, and two settings of a server of one's own that
# Gradio takes from the environment where they are None; returns the public address.
Tunnel = Callable[[str, int, str, None, None], str]


class ShareError(Exception):
    """There is no tunnel; the message says why and what else there is."""


def open_tunnel(host: str, port: int, *, tunnel: Tunnel | None = None) -> str:
    """The public address of a page. Blocks, for up to half a minute and more.

    Args:
        host: on which the page listens.
        port: of the page.
        tunnel: makes it; None: Gradio's.

    Raises:
        ShareError: it cannot be made.
    """
    make = tunnel or gradio.networking.setup_tunnel
    local = _EVERYWHERE.get(host, host)
    try:
        address = str(make(local, port, secrets.token_urlsafe(32), None, None))
    except _FAILURES as exc:
        raise ShareError(
            f"--share: there is no public address ({_said(exc)}). The page goes on at "
            f"http://{local}:{port}. A tunnel needs the internet: {_server()}, and Gradio's frpc, "
            f"which is downloaded once from {tunneling.BINARY_URL}; where that is blocked, put it "
            f"at {tunneling.BINARY_PATH} and make it executable. Without Gradio's servers: name a "
            f"frp server of your own (GRADIO_SHARE_SERVER_ADDRESS=HOST:PORT), or use a reverse "
            f"proxy or `ssh -R`."
        ) from exc
    if _own_server() is None:  # Gradio's own speak HTTPS, whatever the program says
        address = "https://" + address.partition("://")[2]
    return address


def share(host: str, port: int, *, has_login: bool) -> threading.Thread:
    """Opens a tunnel beside the server, and says in the log where it is, or why there is none.

    Args:
        host: on which the page listens.
        port: of the page.
        has_login: whether people have to log in.
    """
    thread = threading.Thread(
        target=_share, args=(host, port, has_login), name="share", daemon=True
    )
    thread.start()
    return thread


def _share(host: str, port: int, has_login: bool) -> None:
    if not has_login:
        _log.warning(
            "--share puts this page on the internet, and whoever learns its address may use it and "
            "your models: --gradio-auth-path FILE asks for a name and a password"
        )
    try:
        address = open_tunnel(host, port)
    except ShareError as exc:
        _log.error("%s", exc)
        return
    _log.info("the page is at %s for everybody, for up to a week", address)


def _said(exc: Exception) -> str:
    """What went wrong, with what was behind it."""
    cause = exc.__cause__
    said = " ".join(str(exc).split()) or type(exc).__name__
    return said if cause is None else f"{said.rstrip('.')}: {cause}"


def _own_server() -> str | None:
    return os.environ.get("GRADIO_SHARE_SERVER_ADDRESS")


def _server() -> str:
    return _own_server() or gradio.networking.GRADIO_API_SERVER
