"""Requests and models that come round: controllers may be workers of controllers, in a circle too.

Each controller adds a name of its own to the header ``Via`` (RFC 9110, 7.6.3) of what it passes on,
and refuses what has been there before. The header survives proxies; LLaVA's and FastChat's
controllers drop it, so that a circle through one of those is ended by bounded lines alone.

So it is with models: each controller says of each of its models which controllers a request passes,
itself first, by one of the shortest ways. Who is on that way already takes no notice: a model that
another has only of us is none that we could have of it. Once a model's last worker is gone, what is
left are ways that grow by a controller from poll to poll, until they meet themselves.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence

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


def shortest(ways: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The way by the fewest controllers; of several the first by name, so that it is always one."""
    return min((tuple(way) for way in ways), key=lambda way: (len(way), way))


def not_through(name: str, told: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The models that a server does not only have by way of a controller.

    Args:
        name: the controller's.
        told: by model, the way from the server on, as it told; empty where that is no controller.
    """
    return {model: tuple(way) for model, way in told.items() if name not in way}
