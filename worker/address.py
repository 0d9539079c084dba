"""Where controllers reach this worker."""

from __future__ import annotations

import ipaddress
import logging
import socket
from urllib.parse import urlsplit

from controller.chassis.network import is_loopback
from controller.chassis.settings import SettingsError

_log = logging.getLogger(__name__)


def address_for(
    controller: str, *, given: str | None, host: str, port: int, scheme: str = "http"
) -> str:
    """The address that this worker gives to one controller.

    A worker that listens on all of its machine's addresses gives the one from which it reaches
    that controller, which is the one by which the controller reaches it, unless there is a
    translation of addresses between them.

    Args:
        controller: the controller's address.
        given: ``--worker-address``; it wins.
        host: what the worker listens on.
        port: what it listens on, never 0.
        scheme: what it speaks there, ``http`` or ``https``.

    Raises:
        SettingsError: the address cannot be told; it has to be given.
    """
    if given is not None:
        return given
    if _is_unspecified(host):
        host = _own_address_towards(controller)
    elif is_loopback(host) and not is_loopback(urlsplit(controller).hostname or ""):
        _log.warning(
            "this worker listens on %s, where the controller at %s cannot reach it unless it runs "
            "on this machine too; --host 0.0.0.0 listens on all addresses",
            host,
            controller,
        )
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _own_address_towards(controller: str) -> str:
    """The local address of a route to the controller. Sends nothing."""
    parts = urlsplit(controller)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)
        family, _, _, _, target = found[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # a datagram socket only picks its route here
            return str(probe.getsockname()[0])
    except (OSError, ValueError) as exc:
        raise SettingsError(
            f"cannot tell at which address the controller at {controller} reaches this worker "
            f"({exc}); give it with --worker-address http://HOST:PORT"
        ) from exc


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""
