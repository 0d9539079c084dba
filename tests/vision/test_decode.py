"""Untrusted bytes become RGB pictures, or an error that says what was wrong with them."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from controller.protocol.errors import BadImageError
from worker.vision.decode import FORMATS, ImageLimits, decode_image

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes) -> bytes:
    """A file with that header, whatever its rows hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def png_claiming(width: int, height: int) -> bytes:
    """A small file whose header promises many pixels."""
    return png(width, height, 8, 2, bytes(1_000_000))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_accepted_format_decodes(kind):
    image = decode_image(encoded(Image.new("RGB", (20, 10), RED), kind))
    assert image.mode == "RGB"
    assert image.size == (20, 10)
    assert image.getpixel((3, 3)) == pytest.approx(RED, abs=3)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 255))]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode_image(data).getpixel((0, 0)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_white(mode):
    assert decode_image(encoded(Image.new(mode, (4, 4), 0))).getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9] * 256)
    data = encoded(image, transparency=0)
    assert decode_image(data).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparency_is_mixed_with_white():
    data = encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128)))
    assert decode_image(data).getpixel((0, 0)) == pytest.approx((255, 127, 127), abs=1)


def test_sixteen_bits_of_grey_keep_their_range():
    ramp = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    image = decode_image(encoded(Image.fromarray(ramp)))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_a_palette_is_looked_up():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    for kind in ("PNG", "GIF", "BMP"):
        assert decode_image(encoded(image, kind)).getpixel((0, 0)) == RED


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    decoded = decode_image(encoded(image))
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("colour_type", "sample", "expected"),
    [
        (2, (65535, 0, 257 * 100), (255, 0, 100)),
        (6, (65535, 0, 0, 65535), RED),
        (6, (65535, 0, 0, 0), (255, 255, 255)),
        (4, (257 * 100, 65535), (100, 100, 100)),
    ],
    ids=["colour", "opaque", "transparent", "grey-opaque"],
)
def test_sixteen_bits_of_colour_become_eight(colour_type, sample, expected):
    row = b"\0" + struct.pack(f">{len(sample)}H", *sample)
    assert decode_image(png(1, 1, 16, colour_type, row)).getpixel((0, 0)) == expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_turned_upright_too(kind):
    image = Image.new("RGB", (20, 10), RED)
    exif = image.getexif()
    exif[0x0112] = 8
    assert decode_image(encoded(image, kind, exif=exif)).size == (10, 20)


def test_cmyk_is_converted():
    image = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert image.getpixel((0, 0)) == pytest.approx(RED, abs=4)


def test_a_picture_taken_with_a_turned_camera_stands_upright():
    image = Image.new("RGB", (20, 10), RED)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_image(encoded(image, "JPEG", exif=exif)).size == (10, 20)


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", ""])
def test_data_uris_and_raw_base64_are_read(prefix):
    text = base64.b64encode(encoded(Image.new("RGB", (3, 2)))).decode()
    assert decode_image(prefix + text).size == (3, 2)


def test_base64_may_be_url_safe_unpadded_and_broken_into_lines():
    data = encoded(Image.effect_noise((16, 16), 90).convert("RGB"))
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    lines = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert decode_image(lines).size == (16, 16)


def quickest(refuse) -> float:
    """Seconds of the best of three: a busy machine says nothing of what the code does."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        refuse()
        times.append(time.perf_counter() - begin)
    return min(times)


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (9500, 9500), (8000, 8000)])
def test_a_decompression_bomb_is_refused_within_100_ms(width, height):
    data = png_claiming(width, height)

    def refuse():
        with pytest.raises(BadImageError, match=rf"{width * height}.* pixels; at most 50000000"):
            decode_image(data)

    assert quickest(refuse) < 0.1


@pytest.mark.parametrize(
    ("kind", "before", "offset", "size"),
    [
        ("JPEG", b"\xff\xc0", 5, struct.pack(">HH", 60000, 60000)),
        ("GIF", b"GIF87a", 6, struct.pack("<HH", 60000, 60000)),
        ("BMP", b"BM", 18, struct.pack("<ii", 60000, 60000)),
        ("WEBP", b"VP8X", 12, (16382).to_bytes(3, "little") * 2),
    ],
)
def test_bombs_of_other_formats_are_refused_within_100_ms_too(kind, before, offset, size):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255))]
    more = {"save_all": True, "append_images": frames[1:]} if kind == "WEBP" else {}
    data = bytearray(encoded(frames[0], kind, **more))
    start = data.index(before) + offset
    data[start : start + len(size)] = size

    def refuse():
        with pytest.raises(BadImageError, match=r"pixels; at most 50000000"):
            decode_image(bytes(data))

    assert quickest(refuse) < 0.1


def test_too_many_bytes_are_refused_before_base64_is_decoded():
    with pytest.raises(BadImageError, match=r"about 3000 bytes; at most 1000"):
        decode_image("A" * 4000, ImageLimits(max_bytes=1000))


def test_too_many_bytes_are_refused():
    with pytest.raises(BadImageError, match=r"has 1001 bytes; at most 1000"):
        decode_image(bytes(1001), ImageLimits(max_bytes=1000))


def test_a_sliver_is_refused_as_padding_it_would_take_a_vast_square():
    with pytest.raises(BadImageError, match=r"1 x 500: one side is 500 times the other"):
        decode_image(encoded(Image.new("RGB", (1, 500))))


def test_a_very_long_picture_is_made_smaller():
    image = decode_image(encoded(Image.new("RGB", (400, 100))), ImageLimits(max_side=200))
    assert image.size == (200, 50)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_image_is_called_so(kind):
    data = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    with pytest.raises(BadImageError, match=f"the ({kind} )?image is (cut short|damaged)"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the image is empty"),
        (b"hello there", "not an image"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0\0\0\x18ftypisom....", "a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        ("data:image/png;base64,!!!!", "base64 is broken"),
        ("data:image/png,xyz", "not base64"),
        ("data:image/png", "no comma"),
        ("https://example.org/cat.png", "does not fetch images from https: addresses"),
        ("file:///etc/passwd", "does not fetch images from file: addresses"),
    ],
)
def test_the_error_says_what_was_wrong(source, message):
    with pytest.raises(BadImageError, match=message) as caught:
        decode_image(source)
    # PIL's own messages hold addresses of objects in this process's memory.
    assert "0x" not in caught.value.message
