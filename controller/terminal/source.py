"""What a terminal asks for answers: a fleet over the wire, or a checkpoint in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from controller.protocol.chat import ChatCompletionChunk, ChatCompletionRequest
from controller.protocol.errors import ParagoneError
from controller.protocol.preview import PreviewRequest


class AnswerError(Exception):
    """A fleet could not be asked, or answered with an error.

    Args:
        message: what happened and what to do.
        code: the error's code (``worker_lost``, ``queue_full``, ...), or ``unreachable``.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


# What a source raises: over the wire, or from the engine in this process.
FAILURES = (AnswerError, ParagoneError)


class AnswerSource(Protocol):
    """Makes answers. All of it belongs to one event loop."""

    async def models(self) -> Sequence[str]:
        """The names that can be asked now.

        Raises:
            AnswerError: nobody can be asked.
        """
        ...

    def answer(self, asked: ChatCompletionRequest) -> AsyncGenerator[ChatCompletionChunk]:
        """One streamed answer; closing the generator ends it at once.

        Raises:
            AnswerError: refused, or broken off on its way.
            ParagoneError: the same, in this process.
        """
        ...

    async def prompt(self, asked: PreviewRequest) -> str:
        """What the model would be given, ``<image>`` for each image; nothing is asked.

        Raises:
            AnswerError: as `answer`.
            ParagoneError: as `answer`.
        """
        ...

    async def aclose(self) -> None:
        """Gives up connections, or the model."""
        ...
