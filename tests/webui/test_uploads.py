"""Uploaded files, looked at before a model sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from webui.uploads import UploadError, UploadLimits, check_images

LIMITS = UploadLimits(max_bytes=2_000_000, max_pixels=1_000_000, max_images=2)


def _save(path: Path, *, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> str:
    Image.effect_noise(size, 80).convert("RGB").save(path, kind)
    return str(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_whole_images_are_taken_by_their_content_and_not_by_their_name(
    tmp_path: Path, kind: str
) -> None:
    [image] = check_images([_save(tmp_path / "picture.txt", kind=kind)], LIMITS)
    assert (image.width, image.height) == (40, 30)
    assert image.media_type == f"image/{kind.lower()}"


def test_text_with_an_image_s_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("<html>hello</html>")
    with pytest.raises(UploadError, match=r"picture\.png is not an image"):
        check_images([str(path)], LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_refused(tmp_path: Path, kind: str) -> None:
    path = Path(_save(tmp_path / "picture", size=(300, 300), kind=kind))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UploadError, match="damaged"):
        check_images([str(path)], LIMITS)


def test_other_kinds_are_refused_with_the_kinds_to_use(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match="TIFF file; save it as PNG, JPEG, WebP or GIF"):
        check_images([_save(tmp_path / "picture.tif", kind="TIFF")], LIMITS)


def test_too_many_pixels_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)  # 400 million pixels in some kilobytes
    with pytest.raises(UploadError, match="pixels"):
        check_images([str(path)], LIMITS)


def test_too_many_bytes_and_too_many_images_are_refused(tmp_path: Path) -> None:
    big = _save(tmp_path / "big.png", size=(900, 900))
    assert Path(big).stat().st_size > 500_000
    with pytest.raises(UploadError, match="MiB, the most is"):
        check_images([big], UploadLimits(max_bytes=500_000, max_pixels=10**9))
    with pytest.raises(UploadError, match="3 images in one question, the most is 2"):
        check_images([_save(tmp_path / f"{n}.png") for n in range(3)], LIMITS)
