"""Images from elsewhere, where an operator allows it; never from inside a private network.

A name is not to be trusted: it may lead to a private address, and to another one each time it is
asked for. So addresses are judged where sockets are made, for each connection, after each redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from controller.protocol.errors import BadImageError

_log = logging.getLogger(__name__)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses of the other protocol in disguise: their last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# A name without scheme, port or path; "*" alone; or "*." before a name.
_HOST_PATTERN = re.compile(r"\*|(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class RemotePolicy:
    """Where images may come from, and at what cost.

    Attributes:
        hosts: names that may be asked: "example.org", "*.example.org" (every name below it), or
            "*"; none: nothing is fetched.
        seconds: for one image, all its redirects included.
        max_redirects: of one image.
    """

    hosts: tuple[str, ...] = ()
    seconds: float = 10.0
    max_redirects: int = 3

    def allows(self, host: str) -> bool:
        """Whether a host is on the list; whatever it leads to is judged later."""
        host = host.lower().rstrip(".")
        below = (pattern[1:] for pattern in self.hosts if pattern.startswith("*."))
        return "*" in self.hosts or host in self.hosts or host.endswith(tuple(below))


def check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts of a setting, as `RemotePolicy` takes them.

    Raises:
        ValueError: one is no host and no pattern of hosts.
    """
    for host in hosts:
        if not _HOST_PATTERN.fullmatch(host):
            raise ValueError(f"expected a host such as example.org, not {host!r}")
    return tuple(host.lower() for host in hosts)


def is_public(address: IpAddress) -> bool:
    """Whether an address is out in the internet: not private, loopback, link-local or special."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(embedded)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _Guard:
    """Makes sockets, to where the connection really goes, whatever name led there.

    Args:
        is_allowed: which addresses may be connected to.
    """

    def __init__(self, is_allowed: Callable[[IpAddress], bool]) -> None:
        self._is_allowed = is_allowed
        self.has_refused = False

    def socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for one address.

        Raises:
            OSError: it may not be connected to.
        """
        family, kind, protocol, _, target = info
        address = ipaddress.ip_address(str(target[0]).partition("%")[0])
        if not self._is_allowed(address):
            _log.warning("an image's address leads to %s, which is not public: refused", address)
            self.has_refused = True
            raise OSError(f"{address} is not public")
        return socket.socket(family, kind, protocol)


class RemoteImages:
    """Fetches images.

    Args:
        policy: from where.
        max_bytes: of one image.
        resolver: from names to addresses; None asks the system.
        is_allowed: which addresses may be connected to.
    """

    def __init__(
        self,
        policy: RemotePolicy,
        *,
        max_bytes: int,
        resolver: AbstractResolver | None = None,
        is_allowed: Callable[[IpAddress], bool] = is_public,
    ) -> None:
        self._policy = policy
        self._max_bytes = max_bytes
        self._resolver = resolver
        self._is_allowed = is_allowed

    async def fetch(self, address: str) -> bytes:
        """The bytes at an ``http`` or ``https`` address.

        Raises:
            BadImageError: it may not be asked for, is too large or too slow, or does not answer.
        """
        try:
            url = URL(address)
        except ValueError as error:
            raise BadImageError("the image's address is not a valid URL") from error
        try:
            async with asyncio.timeout(self._policy.seconds):
                return await self._follow(url)
        except TimeoutError as error:
            raise BadImageError(
                f"the image at {_shown(url)} did not arrive within {self._policy.seconds:g} s"
            ) from error

    async def _follow(self, url: URL) -> bytes:
        guard = _Guard(self._is_allowed)
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            force_close=True,
            socket_factory=guard.socket,
        )
        async with aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept": "image/*", "accept-encoding": "identity", "user-agent": "paragone"},
        ) as session:
            for _ in range(self._policy.max_redirects + 1):
                self._require_allowed(url)
                found = await self._get(session, url, guard)
                if isinstance(found, bytes):
                    return found
                url = found
        raise BadImageError(
            f"the image was redirected more than {self._policy.max_redirects} times; send the "
            "address that it is at"
        )

    def _require_allowed(self, url: URL) -> None:
        if url.scheme not in {"http", "https"}:
            raise BadImageError(f"images are not fetched from {url.scheme}: addresses")
        if not url.raw_host or url.user is not None or url.password is not None:
            raise BadImageError("the image's address must be plain: no user, and a host")
        if not self._policy.allows(url.raw_host):
            raise BadImageError(
                f"this server may not fetch images from {url.host}; send the image itself, or "
                f"start the server with --allow-remote-images {url.host}"
            )

    async def _get(self, session: aiohttp.ClientSession, url: URL, guard: _Guard) -> bytes | URL:
        """The image, or where it is said to be."""
        try:
            async with session.get(url, allow_redirects=False) as reply:
                location = reply.headers.get("location")
                if reply.status in _REDIRECTS and location:
                    return url.join(URL(location))
                if reply.status != 200:
                    raise BadImageError(f"{_shown(url)} answered {reply.status}, not an image")
                return await self._read(reply, url)
        except aiohttp.ClientConnectorError as error:
            if guard.has_refused:
                raise BadImageError(
                    f"{url.host} leads into a private network, where images are not fetched from"
                ) from error
            raise BadImageError(f"{url.host} cannot be reached") from error
        except (aiohttp.ClientError, ValueError) as error:
            _log.info("fetching %s failed: %r", url, error)
            raise BadImageError(f"the image at {_shown(url)} cannot be fetched") from error

    async def _read(self, reply: aiohttp.ClientResponse, url: URL) -> bytes:
        too_large = BadImageError(
            f"the image at {_shown(url)} has more than {self._max_bytes} bytes, which is what is "
            "accepted"
        )
        if (reply.content_length or 0) > self._max_bytes:
            raise too_large
        pieces, size = [], 0
        async for piece in reply.content.iter_any():
            size += len(piece)
            if size > self._max_bytes:
                raise too_large
            pieces.append(piece)
        return b"".join(pieces)


def _shown(url: URL) -> str:
    """An address as a message shows it: without its query, which may hold secrets."""
    return str(url.with_query(None).with_fragment(None))
