"""Requests that come round: controllers may be workers of controllers, also in a circle.

Each controller adds a name of its own to the header ``Via`` (RFC 9110, 7.6.3) of what it passes on,
and refuses what has been there before. The header survives proxies; LLaVA's and FastChat's
controllers drop it, so that a circle through one of those is ended by bounded lines alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from controller.protocol.errors import RequestLoopError

HEADER = b"via"


def own_name() -> str:
    """What one process of a controller is called in ``Via``; another one each time."""
    return "paragone-" + secrets.token_hex(8)


def passed_on(name: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The header for the worker, of a request that came with ``headers``.

    Args:
        name: this controller's, as `own_name` makes it.
        headers: the client's.

    Raises:
        RequestLoopError: the request has been here before.
    """
    so_far = [value.decode("latin-1") for key, value in headers if key == HEADER]
    if not so_far:
        return f"1.1 {name}"
    if any(name in each for each in so_far):
        raise RequestLoopError(RequestLoopError.explanation)
    return ", ".join([*so_far, f"1.1 {name}"])
