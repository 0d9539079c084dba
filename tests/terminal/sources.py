"""A source of answers that says what it is told to, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from controller.protocol.chat import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChunkChoice,
    Delta,
    FinishReason,
)
from controller.protocol.preview import PreviewRequest
from controller.terminal.source import AnswerError


@dataclass
class FakeSource:
    """``answers`` are given in turn; an error is raised, ``INTERRUPT`` is Ctrl-C after a word."""

    answers: list[str | AnswerError]
    asked: list[ChatCompletionRequest] = field(default_factory=list)
    ended: int = 0

    async def models(self) -> list[str]:
        return ["one", "two"]

    async def answer(self, asked: ChatCompletionRequest) -> AsyncGenerator[ChatCompletionChunk]:
        self.asked.append(asked)
        said = self.answers.pop(0)
        try:
            if isinstance(said, AnswerError):
                raise said
            for word in said.split(" "):
                if word == "INTERRUPT":
                    signal.raise_signal(signal.SIGINT)
                    await asyncio.sleep(10)
                yield chunk(word)
            yield chunk(None, FinishReason.STOP)
        finally:
            self.ended += 1

    async def prompt(self, asked: PreviewRequest) -> str:
        return f"PROMPT of {len(asked.messages)}"

    async def aclose(self) -> None:
        pass


def chunk(text: str | None, reason: FinishReason | None = None) -> ChatCompletionChunk:
    choice = ChunkChoice(delta=Delta(content=text), finish_reason=reason)
    return ChatCompletionChunk(id="x", created=0, model="one", choices=[choice])
