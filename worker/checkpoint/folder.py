"""A checkpoint's folder: its JSON files and its weight files. Reads no tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.checkpoint import kinds
from worker.checkpoint.errors import FormatError, IncompleteError, PathError, UnsafeFileError
from worker.checkpoint.kinds import require_kinds

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What of a repository is worth fetching; the rest are other frameworks' copies of the weights.
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.bin", "*.model", "*.jinja", "*.txt", "*.tiktoken"]

# Whole weights, best first: safetensors before pickles, an index before a single file.
_WHOLE = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)

_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """A folder and its ``config.json`` (empty where there is none)."""

    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None  # the commit, for a folder that came from the hub

    @classmethod
    def open(cls, path: Path, *, revision: str | None = None) -> CheckpointFolder:
        """The folder at ``path``.

        Raises:
            PathError: there is no such folder.
            FormatError: its ``config.json`` is not a JSON object, or one of other kinds of values.
        """
        if not path.is_dir():
            if path.is_symlink() and not path.exists():
                kind = f"a link to {path.readlink()}, which is not there"
            else:
                kind = "a file, not a folder" if path.exists() else "not there"
            raise PathError(f"{path} is {kind}; a checkpoint is a folder with a config.json")
        config = read_json(path / "config.json") or {}
        require_kinds(config, kinds.CONFIG, origin=path / "config.json")
        return cls(path, config, revision)

    def has(self, name: str) -> bool:
        """Whether the folder has a file of this name.

        Raises:
            IncompleteError: it has a link of this name, which leads nowhere.
        """
        return is_there(self.path / name)

    def json(self, name: str) -> Mapping[str, Any] | None:
        """A JSON object of the folder; None where there is no such file."""
        return read_json(self.path / name)

    def first(self, *names: str) -> Path | None:
        """The first of these files that exists."""
        return next((self.path / name for name in names if self.has(name)), None)

    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the whole weights, each once; empty where there are none.

        Raises:
            IncompleteError: an index names shards that are not there.
            UnsafeFileError: an index names a file out of the folder.
        """
        found = self.first(*_WHOLE)
        if found is None:
            return ()
        if found.suffix == ".json":
            return self._shards(found)
        return (found,)

    def _shards(self, index: Path) -> tuple[Path, ...]:
        weight_map = (read_json(index) or {}).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise FormatError(f"{index} has no weight_map, so it does not say which files to read")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name or name in {"..", "."}:
                raise UnsafeFileError(
                    f"{index} names {name!r}, which is not a file of its own folder; "
                    "an index may only name files beside it"
                )
        missing = [name for name in names if not self.has(name)]
        if missing:
            raise IncompleteError(
                f"{self.path} lacks {len(missing)} of {len(names)} weight files that "
                f"{index.name} names: {', '.join(missing)}. Download or copy them again"
            )
        return tuple(self.path / name for name in names)

    def listing(self, limit: int = 12) -> str:
        """The folder's file names, for an error message; folders with a slash."""
        names = sorted(entry.name + "/" * entry.is_dir() for entry in self.path.iterdir())
        if not names:
            return "nothing"
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        return ", ".join(names[:limit]) + more


def is_there(path: Path) -> bool:
    """Whether there is a file at a path.

    Raises:
        IncompleteError: there is a link that leads nowhere. What it stood for would else be taken
            for something that the checkpoint does without.
    """
    if path.is_symlink() and not path.exists():
        raise IncompleteError(
            f"{path} is a link to {path.readlink()}, which is not there. Copy the folder with what "
            "its links lead to (cp -rL; the hub's cache keeps files apart from their names), or "
            "download it again"
        )
    return path.is_file()


def require_fetched(path: Path) -> None:
    """Raises an IncompleteError for what Git leaves in place of a large file."""
    with path.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise IncompleteError(
                f"{path} is not the file itself but Git's note of where it lies; fetch it with: "
                f"git -C {path.parent} lfs pull"
            )


def read_json(path: Path) -> Mapping[str, Any] | None:
    """A file's JSON object; None where there is no such file.

    Raises:
        FormatError: the file is not a JSON object.
        IncompleteError: the file is not there but for its name.
    """
    if not is_there(path):
        return None
    require_fetched(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{path} is not JSON ({error}); is the download complete?") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def looks_like_hub_id(name: str) -> bool:
    """Whether a name has the shape of a hub repository: ``owner/name``."""
    return _HUB_ID.fullmatch(name) is not None


def locate(
    path: str, *, revision: str | None = None, with_code: bool = False
) -> CheckpointFolder:  # fmt: skip
    """The folder that ``path`` means: a local one, or the cached copy of a hub repository.

    Args:
        path: what was asked for.
        revision: branch, tag or commit, where the hub is asked.
        with_code: whether a repository's own code is wanted too.

    Raises:
        PathError: neither is there; the message says which were tried.
    """
    local = Path(path).expanduser()
    if local.exists() or not looks_like_hub_id(path):
        return CheckpointFolder.open(local)
    folder = fetch(path, revision=revision, with_code=with_code)
    # A hub snapshot's folder is named by its commit.
    return CheckpointFolder.open(folder, revision=folder.name)


def fetch(repository: str, *, revision: str | None = None, with_code: bool = False) -> Path:
    """The folder of a hub repository, downloaded where needed; honours ``HF_HUB_OFFLINE``.

    Raises:
        PathError: it is not in the cache and cannot be downloaded.
    """
    # Imported on use: most checkpoints are local, and the import takes a noticeable time.
    import httpx  # noqa: PLC0415
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        patterns = [*_HUB_PATTERNS, *(["*.py"] if with_code else [])]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError, ValueError) as error:
        raise PathError(
            f"there is no folder {repository!r} here, and as a repository of the Hugging Face hub "
            f"it cannot be had: {str(error).splitlines()[0]}"
        ) from error
