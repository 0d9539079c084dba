"""A model without weights: it says what it is told to, a character a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from controller.protocol.chat import ChatMessage
from controller.protocol.fleet import ModelCard
from worker.engine.protocol import GenerationRequest, SamplingParams

END = 0


@dataclass(frozen=True)
class FakePrompt:
    text: str
    prompt_tokens: int
    image_tokens: int


def echo(prompt: FakePrompt) -> str:
    return f"You said: {prompt.text}"


@dataclass
class FakeModel:
    """A `SequentialModel` whose tokens are code points; 0 ends an answer.

    ``step_seconds`` is how long a token takes. ``gate``, where it is set, must be set before each
    token: a test holds the model's thread with it. What was done is in ``started`` and ``steps``.
    """

    answer: Callable[[FakePrompt], str] = echo
    name: str = "fake"
    context_length: int = 1000
    end_token_ids: frozenset[int] = frozenset({END})
    step_seconds: float = 0.0
    prepare_seconds: float = 0.0
    error: BaseException | None = None  # raised instead of a token
    error_after: int = 0  # tokens before it is
    prepare_error: Exception | None = None
    gate: threading.Event | None = None
    started: list[str] = field(default_factory=list)
    steps: int = 0
    open_answers: int = 0
    threads: set[str] = field(default_factory=set)

    @property
    def card(self) -> ModelCard:
        return ModelCard(name=self.name, context_length=self.context_length, format="fake")

    def prepare(self, request: GenerationRequest) -> FakePrompt:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        time.sleep(self.prepare_seconds)
        if self.prepare_error is not None:
            raise self.prepare_error
        text = " ".join(_text(message) for message in request.messages)
        image_tokens = 4 * len(request.images)
        return FakePrompt(text, len(text.split()) + image_tokens, image_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def device_memory_bytes(self) -> int | None:
        return None

    def tokens(self, prepared: FakePrompt, sampling: SamplingParams) -> Generator[int]:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        self.started.append(prepared.text)
        self.open_answers += 1
        try:
            for count, character in enumerate(self.answer(prepared) + chr(END)):
                if self.error is not None and count >= self.error_after:
                    raise self.error
                if self.gate is not None:
                    self.gate.wait()
                time.sleep(self.step_seconds)
                self.steps += 1
                yield ord(character)
        finally:
            self.open_answers -= 1


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join(p.text for p in message.content or () if p.type == "text")


def ask(text: str = "hello", *, request_id: str = "req-1", **sampling: object) -> GenerationRequest:
    return GenerationRequest(
        request_id=request_id,
        model="fake",
        messages=(ChatMessage(role="user", content=text),),
        sampling=SamplingParams(**sampling),  # type: ignore[arg-type]
    )
