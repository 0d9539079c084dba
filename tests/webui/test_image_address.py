"""Images by their address: fetched by the page's server, from the internet and nowhere else."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from fastapi import FastAPI
from PIL import Image

from controller.chassis.http import install_errors
from controller.chassis.remote_images import RemoteImages, RemotePolicy, is_public
from controller.chassis.settings import SettingsError
from webui.image_address import image_address_routes
from webui.settings import ENV_PREFIX, WebSettings
from webui.uploads import UploadLimits

pytestmark = pytest.mark.anyio
LIMITS = UploadLimits(max_bytes=50_000, max_pixels=10_000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _Names(AbstractResolver):
    """Every name is this machine's."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=2, proto=0, flags=0)
        ]

    async def close(self) -> None: ...


def _png(size: tuple[int, int] = (40, 30)) -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", size, (0, 80, 160)).save(kept, "PNG")
    return kept.getvalue()


class _Elsewhere:
    """A web server that stands for another one, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        match request.path:
            case "/cat.png":
                return web.Response(body=_png())
            case "/wide.png":
                return web.Response(body=_png((200, 100)))
            case "/page.png":
                return web.Response(
                    text="<html><script>alert(1)</script>", content_type="image/png"
                )
            case "/drawing.svg":
                return web.Response(text="<svg xmlns='http://www.w3.org/2000/svg'/>")
            case "/inside":
                raise web.HTTPFound("http://169.254.169.254/latest/meta-data")
            case "/again":
                raise web.HTTPFound("/cat.png")
        raise web.HTTPNotFound


@pytest.fixture
async def elsewhere() -> AsyncIterator[_Elsewhere]:
    state = _Elsewhere()
    app = web.Application()
    app.router.add_get("/{path:.*}", state.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.port = runner.addresses[0][1]
    yield state
    await runner.cleanup()


@asynccontextmanager
async def _page(*, inside: bool) -> AsyncIterator[httpx.AsyncClient]:
    """The route; ``inside`` takes this machine for the internet."""
    remote = RemoteImages(
        RemotePolicy(("*",), seconds=5),
        max_bytes=LIMITS.max_bytes,
        resolver=_Names(),
        is_allowed=(lambda address: address.is_loopback) if inside else is_public,
    )
    app = FastAPI()
    install_errors(app)
    app.include_router(image_address_routes(remote, LIMITS))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
        yield client


async def _fetch(client: httpx.AsyncClient, address: str, **headers: str) -> httpx.Response:
    return await client.post("/fetch-image", json={"address": address}, headers=headers)


@pytest.mark.parametrize("path", ["cat.png", "again"])
async def test_an_image_comes_with_its_own_type_also_by_a_redirect(
    elsewhere: _Elsewhere, path: str
) -> None:
    async with _page(inside=True) as page:
        reply = await _fetch(page, f"http://pictures.test:{elsewhere.port}/{path}")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "image/png"
    assert reply.content == _png()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("page.png", "page.png is not an image"),
        ("drawing.svg", "drawing.svg is not an image"),
        ("wide.png", "wide.png has 200 x 100 pixels"),
        ("nothing.png", "answered 404"),
        ("inside", "private network"),
    ],
)
async def test_what_is_no_image_or_leads_inside_is_refused_with_its_cause(
    elsewhere: _Elsewhere, path: str, reason: str
) -> None:
    async with _page(inside=True) as page:
        reply = await _fetch(page, f"http://pictures.test:{elsewhere.port}/{path}")
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "bad_image"
    assert reason in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/cat.png",
        "http://2130706433:{port}/cat.png",
        "http://0x7f.1:{port}/cat.png",
        "http://[::ffff:127.0.0.1]:{port}/cat.png",
        "http://rebound.test:{port}/cat.png",
        "http://0.0.0.0:{port}/cat.png",
        "file:///etc/passwd",
        "ftp://pictures.test/cat.png",
        "http://name:word@pictures.test:{port}/cat.png",
        "cat.png",
        "http://",
    ],
)
async def test_nothing_inside_is_ever_asked(elsewhere: _Elsewhere, address: str) -> None:
    async with _page(inside=False) as page:
        reply = await _fetch(page, address.format(port=elsewhere.port))
    assert reply.status_code == 400
    assert elsewhere.asked == []


async def test_another_site_cannot_have_images_fetched(elsewhere: _Elsewhere) -> None:
    async with _page(inside=True) as page:
        address = f"http://pictures.test:{elsewhere.port}/cat.png"
        reply = await _fetch(page, address, **{"sec-fetch-site": "cross-site"})
    assert reply.status_code == 403
    assert elsewhere.asked == []


def _settings(*argv: str) -> WebSettings:
    return WebSettings.parse(argv, program="webui", env_prefix=ENV_PREFIX, environ={})


def test_the_hosts_are_a_setting_that_none_switches_off() -> None:
    assert _settings().allow_remote_images == ("*",)
    assert _settings("--allow-remote-images", "none").allow_remote_images == ()
    hosts = _settings("--allow-remote-images", "example.org, *.cats.org").allow_remote_images
    assert hosts == ("example.org", "*.cats.org")
    with pytest.raises(SettingsError, match="expected a host"):
        _settings("--allow-remote-images", "http://example.org")
