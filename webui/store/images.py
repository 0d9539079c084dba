"""Image files by their content: the same picture is kept once, whoever sent it and how often."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from webui.conversation import UploadedImage
from webui.store.database import StoreError

THUMBNAIL_PIXELS = 320  # the longer side; shown at 96 on screens of up to three times the density
_DIGEST = re.compile(r"[0-9a-f]{64}")
_THUMBNAIL = ".thumb.webp"


class ImageFolder:
    """A folder of images named by the SHA-256 of their bytes, each with a small copy beside it.

    Whoever knows a digest may see the image: it cannot be guessed by who has not the file.

    Args:
        root: the folder; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise StoreError(
                f"The folder of images {root} cannot be made: {exc}. Give the page a folder that "
                f"can be written to (--data-dir)."
            ) from exc

    def keep(self, image: UploadedImage) -> UploadedImage:
        """Copies a checked upload into the folder. Blocks.

        Raises:
            StoreError: it cannot be written.
        """
        digest = _digest_of(image.path)
        path = self.path(digest, image.media_type)
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            if path.is_file():
                os.utime(path)  # young again, so that nobody sweeps it before it has a row
            else:
                _copy(image.path, path)
            if not self.thumbnail(digest).is_file():
                _shrink(path, self.thumbnail(digest))
        except OSError as exc:
            raise StoreError(
                f"The image {image.name or image.path.name} cannot be kept in {self.root}: {exc}. "
                f"Make room, or give the page another folder (--data-dir)."
            ) from exc
        return replace(image, path=path, digest=digest)

    def path(self, digest: str, media_type: str) -> Path:
        """Where the image of this digest is, or would be."""
        return self._folder(digest) / f"{digest}.{media_type.rpartition('/')[2]}"

    def thumbnail(self, digest: str) -> Path:
        """Where its small copy is, or would be."""
        return self._folder(digest) / (digest + _THUMBNAIL)

    def find(self, digest: str) -> Path | None:
        """The image of this digest, whatever its kind; None if there is none."""
        if not _DIGEST.fullmatch(digest):
            return None
        paths = self._folder(digest).glob(digest + ".*")
        return next((path for path in paths if not path.name.endswith(_THUMBNAIL)), None)

    def num_bytes(self) -> int:
        """How much all of it takes on the disk. Blocks."""
        return sum(path.stat().st_size for path in self._files())

    def delete_unless(self, used: Container[str], *, older_than: float) -> int:
        """Deletes images whose digest nobody uses. Blocks.

        Args:
            used: digests to keep.
            older_than: a file changed after this time (Unix seconds) stays: it may have been kept
                for a question that is not written down yet.

        Returns:
            bytes that were freed.
        """
        freed = 0
        for path in self._files():
            stat = path.stat()
            if path.name.partition(".")[0] not in used and stat.st_mtime < older_than:
                path.unlink(missing_ok=True)
                freed += stat.st_size
        return freed

    def _folder(self, digest: str) -> Path:
        return self.root / digest[:2]

    def _files(self) -> Iterator[Path]:
        for path in self.root.glob("??/*"):
            if path.is_file():
                yield path


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    # Under its own name only once it is whole.
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial:
        try:
            with source.open("rb") as file:
                shutil.copyfileobj(file, partial)
            partial.close()
            Path(partial.name).replace(target)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


def _shrink(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial:
        small.save(partial, "WEBP", quality=80)
    Path(partial.name).replace(target)
