"""Images as notebooks have them: files, addresses, bytes and PIL's, to ``data:`` URIs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL.Image import Image

from controller.terminal.images import data_uri, image_uri

ImageSource = str | Path | bytes | Image


async def uri_of(source: ImageSource) -> str:
    """An image, however it is given, as a ``data:`` URI.

    Raises:
        BadImageError: it cannot be read or fetched.
    """
    if isinstance(source, bytes):
        return data_uri(source)
    if isinstance(source, str | Path):
        return await image_uri(str(source))
    return await asyncio.to_thread(_encoded, source)


def _encoded(image: Image) -> str:
    """A PIL image; PNG keeps each pixel as it is."""
    buffer = BytesIO()
    kept = image if image.mode in {"1", "L", "LA", "P", "RGB", "RGBA"} else image.convert("RGB")
    kept.save(buffer, "PNG")
    return data_uri(buffer.getvalue())


def several(images: ImageSource | Sequence[ImageSource] | None) -> Sequence[ImageSource]:
    """None, one or several as a list."""
    if images is None:
        return []
    if isinstance(images, list | tuple):
        return images
    return [images]  # type: ignore[list-item]  # a sequence is a list or a tuple here
