"""A tokenizer's files: whether they are there, and which of them cannot be read.

transformers makes a tokenizer without any word where the file of its words is missing, and says of
a damaged one that a package is not installed; so both are found out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from worker.checkpoint.errors import CheckpointError, TokenizerError
from worker.checkpoint.folder import CheckpointFolder, is_there, require_fetched

# Files that hold a tokenizer's words; each class of transformers reads one of them.
_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
# Names that differ from checkpoint to checkpoint ("qwen.tiktoken", "tokenizer.model.v3").
_PATTERNS = ("*.tiktoken", "tokenizer.model.v*")
_SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "preprocessor_config.json",
)
_SENTENCEPIECE = re.compile(r".*\.model(\.v\d+)?")
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/=]+ \d+\s*")


def require_vocabulary_file(folder: CheckpointFolder) -> None:
    """Checks that a folder has a tokenizer's words, in a file that has something in it.

    Raises:
        TokenizerError: it has none.
        IncompleteError: the file was not fetched, or is a link that leads nowhere.
    """
    files = list(_vocabularies(folder))
    if not files:
        raise TokenizerError(
            f"{folder.path} has no tokenizer (tokenizer.json or tokenizer.model). "
            f"It holds: {folder.listing()}. Copy it from the original download"
        )
    for file in files:
        require_fetched(file)
        if not file.stat().st_size:
            raise TokenizerError(f"{file} is empty; download or copy it again")


def damage(folder: CheckpointFolder) -> str | None:
    """Which of a tokenizer's and a processor's files cannot be read, in words; None: each can."""
    try:
        for name in _SETTINGS:
            folder.json(name)
        for file in _vocabularies(folder):
            if file.suffix == ".json":
                found = folder.json(file.name) or {}
                if file.name == "tokenizer.json" and "model" not in found:
                    return f"{file} holds no tokenizer's model; download or copy it again"
            elif _SENTENCEPIECE.fullmatch(file.name) and not _is_readable(file):
                return f"{file} is damaged or cut short; download or copy it again"
    except CheckpointError as error:
        return str(error)
    return None


def _vocabularies(folder: CheckpointFolder) -> Iterator[Path]:
    for name in _FILES:
        if folder.has(name):
            yield folder.path / name
    for pattern in _PATTERNS:
        yield from sorted(file for file in folder.path.glob(pattern) if is_there(file))


def _is_readable(file: Path) -> bool:
    """Whether a file is SentencePiece's, or tiktoken's, which may have the same name."""
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - only where one has failed

    with file.open("rb") as stream:
        if _TIKTOKEN_LINE.fullmatch(stream.readline(1000)):
            return True
    try:
        SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError):
        return False
    return True
