"""Text to token ids, piece by piece around the images, as the original LLaVA does it.

Original LLaVA reads ``tokenizer.model`` with SentencePiece itself ("slow" and "legacy"): each piece
gets its own leading space, and so does the text after a special token. Fast tokenizers differ on
spaces and newlines, so where that file decides, SentencePiece is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from worker.checkpoint.errors import TokenizerError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.vocabulary import damage, require_vocabulary_file


class PieceEncoder(Protocol):
    """Turns one piece of a prompt into ids, without a beginning-of-sequence token."""

    @property
    def bos_id(self) -> int | None:
        """The token that every prompt starts with, if the model was trained with one."""

    def encode(self, piece: str) -> list[int]:
        """The ids of one piece; special tokens in it are taken as such."""


@dataclass(frozen=True, slots=True)
class FastEncoder:
    """A transformers tokenizer as it comes."""

    tokenizer: Any
    bos_id: int | None

    def encode(self, piece: str) -> list[int]:
        """The ids of one piece."""
        ids: list[int] = self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids


@dataclass(frozen=True, slots=True)
class _Special:
    id: int
    strips_left: bool
    strips_right: bool


class SentencePieceEncoder:
    """SentencePiece with the special tokens of a transformers tokenizer around it.

    Tokens that the model has no embedding for (added by a tokenizer's config alone) stay text.
    """

    def __init__(
        self,
        file: Path,
        tokenizer: Any,  # noqa: ANN401 - transformers is untyped
        *,
        bos_id: int | None,
        num_embeddings: int,
    ) -> None:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

        self.bos_id = bos_id
        self._model = SentencePieceProcessor(model_file=str(file))
        self._specials = {
            token.content: _Special(number, token.lstrip, token.rstrip)
            for number, token in tokenizer.added_tokens_decoder.items()
            if number < num_embeddings
        }
        longest_first = sorted(self._specials, key=len, reverse=True)
        alternatives = "|".join(re.escape(content) for content in longest_first)
        self._split = re.compile(f"({alternatives})") if alternatives else None

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the model file, without added ones."""
        return int(self._model.vocab_size())

    def encode(self, piece: str) -> list[int]:
        """The ids of one piece."""
        return [number for run in self._runs(piece) for number in run]

    def _runs(self, piece: str) -> Iterator[list[int]]:
        if self._split is None:
            yield self._model.encode(piece)
            return
        parts = self._split.split(piece)  # text, special, text, special, ..., text
        for index, part in enumerate(parts):
            if index % 2:
                yield [self._specials[part].id]
                continue
            text = part
            if index > 0 and self._specials[parts[index - 1]].strips_right:
                text = text.lstrip()
            if index + 1 < len(parts) and self._specials[parts[index + 1]].strips_left:
                text = text.rstrip()
            if text:
                yield self._model.encode(text)


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A transformers tokenizer (for decoding and templates) and the encoder that goes with it."""

    tokenizer: Any
    encoder: PieceEncoder

    def encode_pieces(self, pieces: Sequence[str]) -> list[list[int]]:
        """The ids of a prompt's pieces, each on its own; the first starts as the model expects."""
        encoder = self.encoder
        # A template of the checkpoint's own may have written the first token itself.
        first = pieces[0].removeprefix(self.tokenizer.bos_token or "")
        start = [] if encoder.bos_id is None else [encoder.bos_id]
        encoded = [encoder.encode(piece) if piece else [] for piece in (first, *pieces[1:])]
        encoded[0] = start + encoded[0]
        return encoded


def load_tokenizer(
    folder: CheckpointFolder,
    config: Any,  # noqa: ANN401 - transformers is untyped
    *,
    num_embeddings: int,
    trust_remote_code: bool = False,
) -> LoadedTokenizer:
    """The tokenizer of a folder.

    Args:
        folder: where its files are.
        config: the language model's transformers config, which names the tokenizer's class.
        num_embeddings: rows of the model's embedding; a token beyond them could not be read.
        trust_remote_code: whether a tokenizer's own code may run.

    Raises:
        TokenizerError: there is none, it cannot be read, or it is larger than the model.
    """
    # Imported on use: this module's rules are tested without transformers' tables.
    from transformers import AutoTokenizer  # noqa: PLC0415

    require_vocabulary_file(folder)
    settings = folder.json("tokenizer_config.json") or {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder.path, config=config, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # tokenizers raises nothing more specific
        reason = damage(folder) or " ".join(str(error).split())
        raise TokenizerError(f"the tokenizer of {folder.path} cannot be read: {reason}") from error
    vocabulary = folder.path / "tokenizer.model"
    # Llama's tokenizer is "legacy" unless its config says otherwise.
    if vocabulary.is_file() and settings.get("legacy", True) is not False:
        starts = settings.get("add_bos_token", True)
        try:
            encoder = SentencePieceEncoder(
                vocabulary,
                tokenizer,
                bos_id=tokenizer.bos_token_id if starts else None,
                num_embeddings=num_embeddings,
            )
        except RuntimeError as error:  # SentencePiece's
            raise TokenizerError(
                f"{vocabulary} cannot be read by SentencePiece ({error}); download or copy it again"
            ) from error
        _require_size(folder, encoder.vocabulary_size, num_embeddings)
        return LoadedTokenizer(tokenizer, encoder)
    _require_size(folder, len(tokenizer), num_embeddings)
    return LoadedTokenizer(tokenizer, FastEncoder(tokenizer, _leading_token(tokenizer)))


def _leading_token(tokenizer: Any) -> int | None:  # noqa: ANN401
    """The beginning-of-sequence token, where the tokenizer puts one before a text by itself."""
    ids = tokenizer("a")["input_ids"]
    return int(ids[0]) if ids and ids[0] == tokenizer.bos_token_id else None


def _require_size(folder: CheckpointFolder, size: int, num_embeddings: int) -> None:
    if size > num_embeddings:
        raise TokenizerError(
            f"the tokenizer of {folder.path} has {size} tokens and the model {num_embeddings} "
            "embeddings: it belongs to another model"
        )
