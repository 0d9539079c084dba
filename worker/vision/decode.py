"""From untrusted bytes to an RGB picture, within limits that are checked before decoding."""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from controller.protocol.errors import BadImageError
from worker.vision.heic import is_heic, open_heic

# PIL's names of the formats that are read, besides HEIC. Others have decoders with a poor record.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")

_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<parameters>(?:;[^,;]+)*),", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NOT_BASE64 = re.compile(r"\s+")
_PIL_BOMB_SIZE = re.compile(r"\((\d+) pixels\)")

# What PIL's decoders raise on damaged data, besides OSError.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image of a request may be.

    Attributes:
        max_bytes: of the file.
        max_pixels: of the picture, by its header; below PIL's own limit of 89 million.
        max_side: pixels; a longer picture is made smaller, since padding makes it a square.
        max_aspect_ratio: of the longer side to the shorter.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 8192
    max_aspect_ratio: float = 200


DEFAULT_LIMITS = ImageLimits()


def decode_image(source: str | bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """A picture as RGB: upright, the first frame, 8 bits a channel, transparency on white.

    Args:
        source: a file's bytes, a ``data:`` URI, or base64 alone.
        limits: what is accepted.

    Raises:
        BadImageError: it is not a picture that can be read, or is beyond a limit; says which.
    """
    data = _bytes_of(source, limits) if isinstance(source, str) else source
    if len(data) > limits.max_bytes:
        raise BadImageError(
            f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted"
        )
    if not data:
        raise BadImageError("the image is empty")
    image = _open(data, limits)
    _require_size(image.size, limits)
    try:
        image.load()
    except _DECODER_ERRORS as error:
        raise BadImageError(_damage(image.format, error)) from error
    return _upright_rgb(image, limits)


def _bytes_of(source: str, limits: ImageLimits) -> bytes:
    encoded = source.strip()
    if encoded[:5].lower() == "data:":
        match = _DATA_URI.match(encoded)
        if match is None:
            raise BadImageError("the data: URI has no comma after its type; see RFC 2397")
        if ";base64" not in match["parameters"].lower():
            raise BadImageError("the data: URI is not base64; write data:image/png;base64,...")
        encoded = encoded[match.end() :]
    elif scheme := _SCHEME.match(encoded):
        is_web = scheme[1].lower() in {"http", "https"}
        way_out = ", or start the worker with --allow-remote-images" if is_web else ""
        raise BadImageError(
            f"this worker does not fetch images from {scheme[1]}: addresses; send the image "
            f"itself, as a data: URI (data:image/png;base64,...){way_out}"
        )
    # Four characters are three bytes; checked first, so that nothing large is decoded.
    if len(encoded) // 4 * 3 > limits.max_bytes + 3:
        raise BadImageError(
            f"the image has about {len(encoded) // 4 * 3} bytes; at most {limits.max_bytes} "
            "are accepted"
        )
    encoded = _NOT_BASE64.sub("", encoded).translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImageError(f"the image's base64 is broken: {error}") from error


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if is_heic(data):
            return open_heic(data, lambda size: _require_size(size, limits))
        if data[4:12] in {b"ftypavif", b"ftypavis"}:
            raise BadImageError(_damage("AVIF", error)) from error
        raise BadImageError(_unsupported(data)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        match = _PIL_BOMB_SIZE.search(str(error))
        got = match[1] if match else "too many"
        raise BadImageError(_too_many_pixels(got, limits)) from error
    except _DECODER_ERRORS as error:
        raise BadImageError(_damage(None, error)) from error


def _require_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadImageError(f"the image has no pixels: it is {width} x {height}")
    if width * height > limits.max_pixels:
        raise BadImageError(_too_many_pixels(f"{width * height} ({width} x {height})", limits))
    ratio = max(width, height) / min(width, height)
    if ratio > limits.max_aspect_ratio:
        raise BadImageError(
            f"the image is {width} x {height}: one side is {ratio:.0f} times the other, "
            f"at most {limits.max_aspect_ratio:.0f} times is accepted"
        )


def _too_many_pixels(got: str, limits: ImageLimits) -> str:
    return f"the image has {got} pixels; at most {limits.max_pixels} are accepted"


def _damage(kind: str | None, error: Exception) -> str:
    """What is wrong with the data; PIL's own words only where they name nothing of this process."""
    name = f"{kind} image" if kind else "image"
    if "truncated" in str(error).lower():
        return f"the {name} is cut short; it was not sent whole"
    return f"the {name} is damaged and cannot be decoded"


# How files of other kinds begin, so that the message can name them.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"8BPS", "a Photoshop image"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"PK\x03\x04", "a ZIP archive"),
)


def _unsupported(data: bytes) -> str:
    accepted = f"accepted are {', '.join(FORMATS)}"
    for offset, signature, kind in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return f"the image is {kind}, which is not supported; {accepted}"
    start = data[:512].lstrip().lower()
    if start.startswith((b"<svg", b"<?xml")):
        return f"the image is an SVG drawing, which is not supported; {accepted}"
    if start.startswith((b"<!doctype", b"<html")):
        return f"the image is an HTML page, not an image; {accepted}"
    return f"this is not an image, or one that is cut short in its first bytes; {accepted}"


def _upright_rgb(image: Image.Image, limits: ImageLimits) -> Image.Image:
    if max(image.size) > limits.max_side:
        image.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS)
    try:
        upright = ImageOps.exif_transpose(image)
    except _DECODER_ERRORS:
        # Its EXIF block is damaged; the picture itself is not.
        upright = image
    return _to_rgb(upright)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits of grey; PIL's own conversion would cut them off
        return image.point(lambda value: value / 257).convert("L").convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")
