"""Looks at uploaded files before anything else does: are they whole images of a sane size?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from webui.conversation import UploadedImage

# What OpenAI's API takes; each is decoded by every worker.
_MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}


class UploadError(Exception):
    """A file cannot be used as an image; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bounds of what is looked at."""

    max_bytes: int
    max_pixels: int
    max_images: int = 8  # a turn


def check_images(paths: list[str], limits: UploadLimits) -> tuple[UploadedImage, ...]:
    """Decodes each file once. Blocks.

    Raises:
        UploadError: too many, too large, truncated, or no image of a kind that models take.
    """
    if len(paths) > limits.max_images:
        raise UploadError(
            f"{len(paths)} images in one question, the most is {limits.max_images}; "
            f"send the others with the next question"
        )
    return tuple(_check_image(Path(path), limits) for path in paths)


def _check_image(path: Path, limits: UploadLimits) -> UploadedImage:
    num_bytes = path.stat().st_size
    if num_bytes > limits.max_bytes:
        raise UploadError(
            f"{path.name} has {num_bytes / 2**20:.1f} MiB, the most is "
            f"{limits.max_bytes / 2**20:g} MiB; save it smaller"
        )
    try:
        # Opening reads the header alone, so that a bomb is refused before it is unpacked.
        with Image.open(path) as image:
            media_type = _MEDIA_TYPES.get(image.format or "")
            width, height = image.size
            if media_type is None:
                raise UploadError(
                    f"{path.name} is a {image.format} file; save it as PNG, JPEG, WebP or GIF"
                )
            if width * height > limits.max_pixels:
                raise UploadError(
                    f"{path.name} has {width} x {height} pixels, the most is "
                    f"{limits.max_pixels / 1e6:g} million; scale it down"
                )
            image.load()
    except UnidentifiedImageError as exc:
        raise UploadError(
            f"{path.name} is not an image that can be read; save it as PNG, JPEG, WebP or GIF"
        ) from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise UploadError(f"{path.name} unpacks to too many pixels; scale it down") from exc
    except (OSError, SyntaxError, ValueError) as exc:  # what Pillow's decoders raise
        raise UploadError(f"{path.name} is damaged ({exc}); save it anew") from exc
    return UploadedImage(path, media_type, width, height, num_bytes, name=path.name)
