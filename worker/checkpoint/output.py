"""The folder that a tool writes: whole under its name, or not there at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.protocol.fleet import LoadProgress
from worker.checkpoint.errors import OutputError
from worker.checkpoint.folder import CheckpointFolder

# Beside weights and config, what a checkpoint is used with.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
MAX_SHARD_BYTES = 5 * 10**9
_SPARE_BYTES = 64 * 2**20  # what configs and tokenizers may take, at most


@dataclass(frozen=True, slots=True)
class Output:
    """Where a tool writes, and how.

    Attributes:
        path: the folder.
        overwrite: whether what is there may be replaced.
        max_shard_bytes: size of a weight file, unless one tensor alone is larger.
        on_progress: told of every tensor that has been written.
    """

    path: Path
    overwrite: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES
    on_progress: Callable[[LoadProgress], None] = lambda _progress: None

    def require_usable(self, inputs: Iterable[Path]) -> None:
        """Checks that the folder may be written.

        Args:
            inputs: folders that are read, and so must stay.

        Raises:
            OutputError: it is in use, or would replace an input.
        """
        target = self.path.resolve()
        for folder in inputs:
            source = folder.resolve()
            if target == source or target in source.parents:
                raise OutputError(
                    f"{self.path} would be replaced, and {folder} is read from; write elsewhere"
                )
        if self.path.is_dir():
            if any(self.path.iterdir()) and not self.overwrite:
                raise OutputError(
                    f"{self.path} is there and not empty; choose another folder, or replace it "
                    "with --overwrite"
                )
        elif self.path.exists() or self.path.is_symlink():
            raise OutputError(f"{self.path} is a file, not a folder; choose another name")

    @contextmanager
    def folder(self, inputs: Iterable[Path], *, num_bytes: int) -> Iterator[Path]:
        """A folder to write into, which gets its name when the block has ended well.

        Args:
            inputs: folders that are read.
            num_bytes: what will be written.

        Raises:
            OutputError: it may not be written, or the disk has too little room.
        """
        self.require_usable(inputs)
        parent = self.path.absolute().parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(parent).free
            if num_bytes + _SPARE_BYTES > free:
                raise OutputError(
                    f"{parent} has {_gb(free)} free and {_gb(num_bytes)} are to be written; make "
                    "room, or write to another disk"
                )
            partial = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.partial-", dir=parent))
        except OSError as error:
            raise OutputError(f"{parent} cannot be written to: {error}") from error
        try:
            yield partial
            partial.chmod(0o755)  # mkdtemp's is the owner's alone
            self._put_in_place(partial)
        except OSError as error:
            raise OutputError(f"{self.path} could not be written: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _put_in_place(self, partial: Path) -> None:
        if not self.path.is_dir():
            partial.rename(self.path)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.old-", dir=partial.parent))
        self.path.rename(old)  # onto an empty folder
        try:
            partial.rename(self.path)
        except OSError:
            old.rename(self.path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def meter(self, phase: str, num_bytes: int) -> Callable[[int], None]:
        """Counts bytes of a phase and reports them."""
        done = 0

        def add(count: int) -> None:
            nonlocal done
            done += count
            self.on_progress(
                LoadProgress(
                    phase=phase,
                    fraction=min(1.0, done / max(1, num_bytes)),
                    bytes_done=done,
                    bytes_total=num_bytes,
                )
            )

        return add


def copy_files(source: CheckpointFolder, names: Iterable[str], folder: Path) -> None:
    """Copies those of the named files that are there."""
    for name in names:
        if source.has(name):
            shutil.copyfile(source.path / name, folder / name)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object as transformers does."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
