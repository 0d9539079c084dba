"""A model without weights: it says what it is told to, a character a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from controller.protocol.chat import ChatMessage
from controller.protocol.errors import BadRequestError, ModelNotFoundError, OutOfMemoryError
from controller.protocol.fleet import ModelCard
from worker.engine.batch import KVFullError
from worker.engine.protocol import (
    CacheStats,
    GenerationRequest,
    PromptView,
    Reuse,
    SamplingParams,
)
from worker.engine.tokens import Token
from worker.vision.tiles import ImageView

END = 0


@dataclass(frozen=True)
class FakePrompt:
    text: str
    prompt_tokens: int
    image_tokens: int
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()

    @property
    def input_ids(self) -> tuple[int, ...]:
        return tuple(map(ord, self.text))


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
    prepare_gate: threading.Event | None = None  # must be set before a prompt is prepared
    started: list[str] = field(default_factory=list)
    steps: int = 0
    open_answers: int = 0
    threads: set[str] = field(default_factory=set)
    rests: list[int] = field(default_factory=list)  # steps before each
    adapters: list[str] = field(default_factory=list)  # names besides the first
    freed: list[tuple[str, int]] = field(default_factory=list)  # and open answers then

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        length = self.context_length
        return tuple(
            ModelCard(name=name, context_length=length, format="fake")
            for name in (self.name, *self.adapters)
        )

    def serving(self, model: str) -> FakeModel:
        return self

    def read_adapter(self, name: str, path: str) -> Callable[[], ModelCard]:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        if path.endswith("bad"):
            raise BadRequestError("lora_path: bad", param="lora_path")

        def put() -> ModelCard:
            self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
            self.adapters.append(name)
            return self.cards[-1]

        return put

    def dismiss(self, name: str) -> Callable[[], None]:
        if name not in self.adapters:
            raise ModelNotFoundError(f"no {name}")
        self.adapters.remove(name)
        return lambda: self.freed.append((name, self.open_answers))

    def prepare(self, request: GenerationRequest) -> FakePrompt:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        time.sleep(self.prepare_seconds)
        if self.prepare_gate is not None:
            self.prepare_gate.wait()
        if self.prepare_error is not None:
            raise self.prepare_error
        text = " ".join(_text(message) for message in request.messages)
        if request.prompt is not None:
            asked = request.prompt
            text = asked if isinstance(asked, str) else self.decode(asked)
        image_tokens = 4 * len(request.images)
        return FakePrompt(text, len(text.split()) + image_tokens, image_tokens)

    def preview(self, request: GenerationRequest) -> PromptView:
        prompt = self.prepare(request)
        images = tuple(ImageView((image,), 4, (1, 1)) for image in request.images)
        return PromptView(prompt.text, prompt.prompt_tokens, prompt.image_tokens, images)

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def token_bytes(self, token_id: int) -> bytes:
        return chr(token_id).encode()

    def device_memory_bytes(self) -> int | None:
        return None

    def tokens(self, prepared: FakePrompt, sampling: SamplingParams) -> Generator[int]:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        self.started.append(prepared.text)
        self.open_answers += 1
        try:
            for count, character in enumerate(_characters(self.answer(prepared), sampling)):
                if self.error is not None and count >= self.error_after:
                    raise self.error
                if self.gate is not None:
                    self.gate.wait()
                time.sleep(self.step_seconds)
                self.steps += 1
                yield _token(character, sampling)
        finally:
            self.open_answers -= 1


@dataclass(eq=False)
class FakeRow:
    """An answer of a `FakeBatchModel` in the making."""

    prompt: FakePrompt
    characters: list[str]
    length: int = 0
    unread: int = 0


@dataclass
class FakeBatchModel(FakeModel):
    """A `BatchModel` of the same kind. ``error`` comes from ``step``, once `error_after` were done.

    ``prefill_error`` is raised for prompts that contain "bad". ``batches`` holds the size of each
    step, ``parts`` those of the prompts that were read.
    """

    prefill_error: Exception | None = None
    most_rows: int = 1_000  # more of them are out of memory
    kv_limit: int = 10**9  # tokens of all rows together
    caches: int = 0  # that could be given up for memory
    batches: list[int] = field(default_factory=list)
    parts: list[tuple[str, int]] = field(default_factory=list)
    rows: list[FakeRow] = field(default_factory=list)

    def has_room(self, tokens: int) -> bool:
        return sum(row.length for row in self.rows) + tokens + 2 <= self.kv_limit

    def open(self, prepared: FakePrompt, sampling: SamplingParams) -> FakeRow:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        self.started.append(prepared.text)
        if self.prefill_error is not None and "bad" in prepared.text:
            raise self.prefill_error
        self.open_answers += 1
        characters = list(_characters(self.answer(prepared), sampling))
        row = FakeRow(prepared, characters, prepared.prompt_tokens)
        self.reopen(row)
        return row

    def reopen(self, row: FakeRow) -> None:
        row.unread = row.length

    def unread(self, row: FakeRow) -> int:
        return row.unread

    def reuse(self, row: FakeRow) -> Reuse:
        return Reuse()

    def cache_stats(self) -> CacheStats:
        return CacheStats()

    def prefill(self, row: FakeRow, max_tokens: int) -> int | None:
        part = min(row.unread, max_tokens)
        self.parts.append((row.prompt.text, part))
        row.unread -= part
        if row.unread:
            return None
        if sum(each.length for each in self.rows) + row.length > self.kv_limit:
            raise KVFullError(f"{row.length} tokens more")
        self.rows.append(row)
        return self._next(row)

    def step(self, rows: Sequence[FakeRow]) -> list[int]:
        assert set(rows) == set(self.rows)
        if sum(row.length + 1 for row in rows) > self.kv_limit:
            raise KVFullError(f"{len(rows)} rows")
        if len(rows) > self.most_rows:
            raise OutOfMemoryError(f"{len(rows)} rows are too many")
        if self.error is not None and len(self.batches) >= self.error_after:
            raise self.error
        if self.gate is not None:
            self.gate.wait()
        time.sleep(self.step_seconds)
        self.steps += 1
        self.batches.append(len(rows))
        return [self._next(row) for row in rows]

    def preempt(self, row: FakeRow) -> None:
        if row in self.rows:
            self.rows.remove(row)

    def release_caches(self) -> bool:
        freed, self.caches = self.caches > 0, 0
        self.most_rows += freed
        return freed

    def rest(self) -> None:
        self.threads.add(threading.current_thread().name.rsplit("_", 1)[0])
        self.rests.append(len(self.batches))

    def close(self, row: FakeRow) -> None:
        self.open_answers -= 1
        if row in self.rows:
            self.rows.remove(row)

    def _next(self, row: FakeRow) -> int:
        row.length += 1
        return ord(row.characters.pop(0)) if row.characters else END


def _characters(answer: str, sampling: SamplingParams) -> str:
    """The second choice and those after it say which they are."""
    return answer + (f" ({sampling.choice})" if sampling.choice else "") + chr(END)


def _token(character: str, sampling: SamplingParams) -> int:
    """Each token is as likely as the last, and "?" is likelier."""
    if sampling.logprobs is None:
        return ord(character)
    likeliest = ((ord("?"), -0.25), (ord(character), -1.5))[: sampling.logprobs]
    return Token(ord(character), logprob=-1.5, likeliest=likeliest)


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
