"""HEIC, the format of phones, where pillow-heif is installed; and what is said where it is not."""

from __future__ import annotations

import io
import struct
import sys
import time

import pytest
from PIL import Image

from controller.protocol.errors import BadImageError
from worker.vision.decode import ImageLimits, decode_image


@pytest.fixture(scope="module")
def heic() -> bytes:
    """Red on the left, blue on the right."""
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 64))
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=90)
    return stream.getvalue()


def claiming(heic: bytes, width: int, height: int) -> bytes:
    """The same file, whose header promises another size."""
    return heic.replace(struct.pack(">II", 64, 64), struct.pack(">II", width, height))


def test_heic_decodes(heic):
    image = decode_image(heic)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    assert image.getpixel((5, 20)) == pytest.approx((255, 0, 0), abs=12)
    assert image.getpixel((60, 20)) == pytest.approx((0, 0, 255), abs=12)


def test_a_heic_bomb_is_refused_within_100_ms(heic):
    bomb = claiming(heic, 30000, 30000)
    assert bomb != heic
    with pytest.raises(BadImageError):
        decode_image(bomb)  # the library is loaded
    begin = time.perf_counter()
    with pytest.raises(BadImageError, match=r"900000000 \(30000 x 30000\) pixels; at most"):
        decode_image(bomb)
    assert time.perf_counter() - begin < 0.1


def test_a_heics_limits_are_checked_before_it_is_decoded(heic):
    with pytest.raises(BadImageError, match=r"4096 \(64 x 64\) pixels; at most 4000"):
        decode_image(heic, ImageLimits(max_pixels=4000))


@pytest.mark.parametrize("part", [40, 200, -40])
def test_a_heic_that_is_cut_short_is_called_so(heic, part):
    with pytest.raises(BadImageError, match="the HEIC image is damaged or cut short"):
        decode_image(heic[:part])


def test_without_the_extra_the_error_names_it_and_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImageError, match=r"a HEIC image.*PNG or a JPEG, or install paragone"):
        decode_image(b"\0\0\0\x18ftypheic....")
