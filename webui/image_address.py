"""Images that a person names by their address: fetched by this server, judged like uploads.

The browser cannot fetch them itself: the page's content security policy forbids it to ask other
hosts, and most of them would not let it read what they answer.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from controller.chassis.remote_images import RemoteImages
from controller.protocol.errors import BadImageError, QueueFullError
from webui.document import refuse_other_sites
from webui.uploads import UploadError, UploadLimits, check_images

_MAX_ADDRESS = 4000  # characters
_MAX_FETCHES = 8  # at one time, by all people together
_MAX_NAME = 100


class ImageAddress(BaseModel):
    """Where an image is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(min_length=1, max_length=_MAX_ADDRESS)


def image_address_routes(remote: RemoteImages, limits: UploadLimits) -> APIRouter:
    """The route.

    Args:
        remote: fetches, from where it may.
        limits: of what is taken.
    """
    router = APIRouter()
    fetching = 0

    @router.post("/fetch-image")
    async def fetch(asked: ImageAddress, request: Request) -> Response:
        """The image at an address, for the composer; nothing is kept here.

        Raises:
            BadImageError: it cannot be fetched, may not be, or is no image that models take.
            QueueFullError: others fetch already.
        """
        nonlocal fetching
        refuse_other_sites(request)
        if fetching >= _MAX_FETCHES:
            raise QueueFullError(
                f"{_MAX_FETCHES} images are being fetched already; try again in some seconds."
            )
        fetching += 1
        try:
            content = await remote.fetch(asked.address.strip())
            media_type = await asyncio.to_thread(_check, content, _name(asked.address), limits)
        except UploadError as exc:
            raise BadImageError(str(exc)) from exc
        finally:
            fetching -= 1
        return Response(content, media_type=media_type, headers={"cache-control": "no-store"})

    return router


def _check(content: bytes, name: str, limits: UploadLimits) -> str:
    """The media type of an image, by its content. Blocks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        (image,) = check_images([str(path)], limits)
    return image.media_type


def _name(address: str) -> str:
    """What an error calls the image: the end of its address."""
    try:
        end = unquote(urlsplit(address).path).rpartition("/")[2]
    except ValueError:
        end = ""
    kept = "".join(sign for sign in end if sign.isalnum() or sign in "-_. ")
    return kept.strip(". ")[-_MAX_NAME:].encode()[-200:].decode(errors="ignore") or "image"
