"""Token ids to text as they come: no half characters, no lost spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# What decoders put where bytes are no (or not yet a) character.
REPLACEMENT = "�"
# Tokens that are waited for at most. No character has as many; of a model that says bytes which
# are none, or ends that are not shown, all would be decoded again with each that follows.
MOST_HELD = 128


class Detokenizer:
    """Incremental detokenisation over any tokenizer's ``decode``.

    Tokens cannot be decoded one by one: SentencePiece drops the space before a first word, and a
    Chinese character or an emoji may be three or four byte tokens. So a window that starts some
    tokens back is decoded with and without the new tokens, and the difference is the new text;
    while it ends in a replacement character, it waits. The same approach is used by vLLM and TGI.

    Args:
        decode: ids to text, special tokens left out, spaces not cleaned up.
        context: some tokens right before the first, where the text goes on from theirs: its
            leading space is kept then. Without it, the text stands for itself.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, context: Sequence[int] = ()
    ) -> None:
        self._decode = decode
        self._ids, before = _usable(decode, context)
        self._start = 0  # of the window
        self._shown = len(self._ids)  # tokens whose text has been given out
        self._shown_text = before  # decode(ids[start:shown])

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self._ids.append(token_id)
        text = self._decode(self._ids[self._start :])
        is_held_enough = len(self._ids) - self._shown >= MOST_HELD
        if len(text) > len(self._shown_text):
            is_whole = not text.endswith(REPLACEMENT)
            return self._give_out(text) if is_whole or is_held_enough else ""
        if is_held_enough:
            del self._ids[self._shown :]
        return ""

    def flush(self) -> str:
        """What is left, once no more tokens come: an incomplete character shows as U+FFFD."""
        text = self._decode(self._ids[self._start :])
        return self._give_out(text) if len(text) > len(self._shown_text) else ""

    def _give_out(self, text: str) -> str:
        new = text[len(self._shown_text) :]
        # The next window starts where the last text was given out: one piece of context is
        # enough for the spaces, and its cost does not grow with the answer.
        self._start, self._shown = self._shown, len(self._ids)
        self._shown_text = self._decode(self._ids[self._start :])
        return new


def _usable(
    decode: Callable[[Sequence[int]], str], context: Sequence[int]
) -> tuple[list[int], str]:
    """As much of a context as begins and ends with a character, and its text."""
    # A run of bytes that begins within a character is no text at all; four are a character.
    for begin in range(min(4, len(context))):
        ids = list(context[begin:])
        text = decode(ids)
        if not text.endswith(REPLACEMENT):
            return ids, text
    return [], ""
