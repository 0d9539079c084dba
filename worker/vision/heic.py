"""HEIC, the format of phones: read where `pillow-heif` is installed.

It is an extra (``paragone[heic]``), since its wheels carry libraries under the GPL and the LGPL.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from controller.protocol.errors import BadImageError

# What a file of the format says it is, after its length: HEVC pictures, alone or in sequence.
_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def is_heic(data: bytes) -> bool:
    """Whether a file begins as HEIC does; AVIF, its relative, says otherwise."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def open_heic(data: bytes, require_size: Callable[[tuple[int, int]], None]) -> Image.Image:
    """The first picture of a HEIC file, upright: turning it is a part of the format.

    Args:
        data: the file.
        require_size: checks a size in pixels before anything of it is decoded.

    Raises:
        BadImageError: it cannot be read here, or at all.
    """
    try:
        import pillow_heif  # noqa: PLC0415 - an extra; a worker without it starts and serves
    except ImportError as error:
        raise BadImageError(
            "the image is a HEIC image, which this worker cannot read: send a PNG or a JPEG, or "
            "install paragone[heic] beside it"
        ) from error
    try:
        picture = pillow_heif.open_heif(data)
        require_size(picture.size)
        decoded: Image.Image = picture.to_pillow()
    except BadImageError:
        raise
    except (ValueError, EOFError, OSError, RuntimeError, SyntaxError) as error:
        raise BadImageError(
            "the HEIC image is damaged or cut short, and cannot be decoded"
        ) from error
    return decoded
