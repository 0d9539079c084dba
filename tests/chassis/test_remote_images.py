"""Images from elsewhere: only from where it is allowed, and never from inside a network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from controller.chassis.remote_images import RemoteImages, RemotePolicy, is_public
from controller.protocol.errors import BadImageError

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Names(AbstractResolver):
    """Answers each question for a name with the next of its addresses; the last one stays."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): left for name, left in addresses.items()}
        self.asked: list[str] = []

    async def resolve(self, host, port=0, family=socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        left = self.addresses[host]
        address = left.pop(0) if len(left) > 1 else left[0]
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None: ...


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A web server on this machine; its port."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def images(*hosts, resolver=None, inside=True, max_bytes=1000, **policy) -> RemoteImages:
    """Fetches; ``inside`` lets tests connect to this machine."""
    return RemoteImages(
        RemotePolicy(hosts, **policy),
        max_bytes=max_bytes,
        resolver=resolver or Names(pictures_test=["127.0.0.1"], other_test=["127.0.0.1"]),
        **({"is_allowed": lambda address: True} if inside else {}),
    )


async def hello(_request):
    return web.Response(body=b"a picture")


async def test_an_image_of_an_allowed_host_comes():
    async with serving(hello) as port:
        fetched = await images("pictures.test").fetch(f"http://pictures.test:{port}/cat.png?x=1")
    assert fetched == b"a picture"


async def test_a_host_that_is_not_on_the_list_is_not_even_looked_up():
    names = Names()
    with pytest.raises(BadImageError, match=r"not fetch images from evil\.test.*--allow-remote-im"):
        await images("pictures.test", resolver=names).fetch("http://evil.test/cat.png")
    assert names.asked == []


@pytest.mark.parametrize(
    ("patterns", "host", "allowed"),
    [
        (("*",), "anything.example", True),
        (("*.example.org",), "a.b.example.org", True),
        (("*.example.org",), "example.org", False),
        (("*.example.org",), "badexample.org", False),
        (("example.org",), "EXAMPLE.org.", True),
        (("example.org",), "www.example.org", False),
        ((), "example.org", False),
    ],
)
def test_patterns_take_a_host_or_all_below_it(patterns, host, allowed):
    assert RemotePolicy(patterns).allows(host) is allowed


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:{port}/", "http://localhost.test:{port}/", "http://[::1]:{port}/",
     "http://[::ffff:127.0.0.1]:{port}/"],
)  # fmt: skip
async def test_this_machine_is_never_asked_whatever_it_is_called(address):
    requests = []

    async def record(request):
        requests.append(request)
        return web.Response(body=b"secret")

    async with serving(record) as port:
        remote = images("*", resolver=Names(localhost_test=["127.0.0.1"]), inside=False)
        with pytest.raises(BadImageError, match=r"private network|cannot be reached"):
            await remote.fetch(address.format(port=port))
    assert requests == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_judged_by_where_it_leads():
    """DNS rebinding: the address that is connected to is the one that is judged."""

    async def redirect(request):
        if request.path == "/secret":
            return web.Response(body=b"secret")
        raise web.HTTPFound("/secret")

    names = Names(pictures_test=["127.0.0.1", "127.0.0.2"])
    async with serving(redirect) as port:
        remote = RemoteImages(
            RemotePolicy(("pictures.test",)),
            max_bytes=1000,
            resolver=names,
            is_allowed=lambda address: str(address) == "127.0.0.1",  # as if it were public
        )
        with pytest.raises(BadImageError, match="leads into a private network"):
            await remote.fetch(f"http://pictures.test:{port}/cat.png")
    assert names.asked == ["pictures.test", "pictures.test"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://evil.test/", "may not fetch images from evil"),
        ("http://169.254.169.254/latest/meta-data", "may not fetch images from 169"),
        ("file:///etc/passwd", "not fetched from file: addresses"),
        ("gopher://pictures.test/", "not fetched from gopher: addresses"),
        ("http://user:word@pictures.test/", "must be plain"),
    ],
)
async def test_a_redirect_has_to_keep_every_rule(location, reason):
    async def redirect(_request):
        raise web.HTTPFound(location)

    async with serving(redirect) as port:
        with pytest.raises(BadImageError, match=reason):
            await images("pictures.test").fetch(f"http://pictures.test:{port}/")


async def test_redirects_are_followed_so_many_times_and_no_more():
    async def redirect(request):
        left = int(request.path[1:])
        if left == 0:
            return web.Response(body=b"a picture")
        raise web.HTTPFound(f"/{left - 1}")

    async with serving(redirect) as port:
        remote = images("pictures.test", max_redirects=2)
        assert await remote.fetch(f"http://pictures.test:{port}/2") == b"a picture"
        with pytest.raises(BadImageError, match="redirected more than 2 times"):
            await remote.fetch(f"http://pictures.test:{port}/3")


async def test_an_image_that_says_it_is_too_large_is_not_read():
    async def large(_request):
        return web.Response(body=bytes(2000))

    async with serving(large) as port:
        with pytest.raises(BadImageError, match="more than 1000 bytes"):
            await images("pictures.test").fetch(f"http://pictures.test:{port}/")


@pytest.mark.parametrize(
    ("piece", "policy", "reason"),
    [
        (bytes(100), {}, "more than 1000 bytes"),  # at the limit
        (b".", {"seconds": 0.3}, r"did not arrive within 0\.3 s"),
    ],
    ids=["large", "slow"],
)
async def test_an_image_that_never_ends_is_given_up(piece, policy, reason):
    async def endless(request):
        reply = web.StreamResponse()
        await reply.prepare(request)
        while True:
            await reply.write(piece)
            await asyncio.sleep(0.005)

    async with serving(endless) as port:
        with pytest.raises(BadImageError, match=reason):
            await images("pictures.test", **policy).fetch(f"http://pictures.test:{port}/")


async def test_what_is_not_found_is_said_without_the_querys_secrets():
    async def missing(_request):
        raise web.HTTPNotFound

    async with serving(missing) as port:
        with pytest.raises(BadImageError, match=r"/cat\.png answered 404") as caught:
            await images("pictures.test").fetch(f"http://pictures.test:{port}/cat.png?key=secret")
    assert "secret" not in caught.value.message


async def test_a_host_that_does_not_answer_is_said_to_be_out_of_reach():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(BadImageError, match=r"pictures\.test cannot be reached"):
            await images("pictures.test").fetch(f"http://pictures.test:{port}/")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1",
     "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"],
)  # fmt: skip
def test_addresses_inside_networks_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::6810:84e5", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(ipaddress.ip_address(address))
