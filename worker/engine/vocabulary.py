"""A tokenizer's tokens as bytes, and which of them may come next in JSON of a schema.

Both come from llguidance, which reads any of transformers' fast tokenizers (byte-level ones and
SentencePiece's) and finds the tokens that a grammar allows from state to state, without compiling
whole vocabularies beforehand.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Set
from typing import Any

import llguidance
import llguidance.hf
import torch

from controller.protocol.errors import BadRequestError, ParagoneError, UnsupportedError

# Compiled schemas that are kept for the next request; a few kB each.
REMEMBERED_SCHEMAS = 64
# As `json.dumps` writes it, on one line or indented. Where any blanks may come, models that were
# not trained for JSON fill it with them until their tokens are used up.
WHITESPACE = r"( |\n[ \t]{0,16})?"
_FIELD = "response_format"


class Constraint:
    """What may come next in one answer; belongs to the model's thread."""

    def __init__(self, matcher: llguidance.LLMatcher, *, words: int) -> None:
        self._matcher = matcher
        self.words = words  # of 32 tokens each

    @property
    def is_complete(self) -> bool:
        """Whether only the end can come."""
        return self._matcher.is_stopped()

    @property
    def error(self) -> ParagoneError | None:
        """Why it can go no further, if so."""
        if not self._matcher.is_error():
            return None
        return BadRequestError(
            f"{_FIELD}: the answer cannot be held to the schema: {self._matcher.get_error()}",
            param=_FIELD,
        )

    def fill(self, mask: torch.Tensor) -> None:
        """Writes which tokens may come: ``(words,)`` int32 on the CPU, bit i of word w is 32w+i."""
        self._matcher.unsafe_compute_mask_ptr(mask.data_ptr(), self.words * 4)

    def accept(self, token_id: int) -> None:
        """A token has come."""
        self._matcher.consume_token(token_id)


class Vocabulary:
    """The tokens of one tokenizer. Reading a large one takes about a second, on first use.

    Args:
        tokenizer: transformers'.
        end_token_ids: tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, end_token_ids: Set[int]) -> None:  # noqa: ANN401 - untyped
        self._tokenizer = tokenizer
        self._end_token_ids = end_token_ids
        self._read: llguidance.LLTokenizer | None = None
        self._matchers: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def read(self) -> llguidance.LLTokenizer:
        """Reads the tokenizer, so that nobody has to wait for it later.

        Raises:
            UnsupportedError: it is of no kind that can be read.
        """
        if self._read is None:
            with self._lock:
                self._read = self._load()
        return self._read

    def _load(self) -> llguidance.LLTokenizer:
        ends = sorted(each for each in self._end_token_ids if each < len(self._tokenizer))
        try:
            return llguidance.hf.from_tokenizer(self._tokenizer, eos_token=ends or None)
        except ValueError as exc:
            raise UnsupportedError(
                f"The bytes of this model's tokens are not known ({exc}), so that it answers "
                f"without response_format and logprobs alone"
            ) from exc

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for, its leading space included; a special token's name."""
        read = self.read()
        return read.decode_bytes([token_id]) if 0 <= token_id < read.vocab_size else b""

    def constraint(self, schema: str) -> Constraint:
        """The constraint of a new answer.

        Args:
            schema: a JSON schema as JSON.

        Raises:
            BadRequestError: it is no schema, or has what is not supported; it says what.
            UnsupportedError: this model cannot be held to any.
        """
        read = self.read()
        with self._lock:
            matcher = self._matchers.get(schema)
        if matcher is None:
            # Not under the lock: a large schema takes long, and other answers go on meanwhile.
            matcher = self._compile(read, schema)
        with self._lock:
            self._matchers[schema] = matcher
            self._matchers.move_to_end(schema)
            while len(self._matchers) > REMEMBERED_SCHEMAS:
                self._matchers.popitem(last=False)
            return Constraint(matcher.deep_copy(), words=(read.vocab_size + 31) // 32)

    def _compile(self, read: llguidance.LLTokenizer, schema: str) -> llguidance.LLMatcher:
        if not self._end_token_ids:
            raise UnsupportedError(
                f"{_FIELD}: this model knows no token that ends an answer", param=_FIELD
            )
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                schema, overrides={"whitespace_pattern": WHITESPACE}
            )
        except ValueError as exc:
            raise BadRequestError(f"{_FIELD}: {exc}", param=_FIELD) from exc
        limits = llguidance.LLParserLimits(verbose_errors=False)
        matcher = llguidance.LLMatcher(read, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise BadRequestError(
                f"{_FIELD}: this schema cannot be used: {matcher.get_error()}", param=_FIELD
            )
        return matcher
