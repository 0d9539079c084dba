"""An accepted request inside an engine, and how it ends. No torch."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from controller.protocol.chat import FinishReason, PromptTokensDetails, Usage
from controller.protocol.errors import (
    DeadlineError,
    DrainingError,
    InternalError,
    ParagoneError,
)
from worker.engine.answer import Answer
from worker.engine.protocol import Finished, GenerationEvent, GenerationRequest, Reuse
from worker.engine.scheduler import Ticket
from worker.engine.timing import Timing

_log = logging.getLogger(__name__)

# Of answers of any length, the tokens that there is to be memory for before they begin.
FIRST_ANSWER_TOKENS = 256


class Prepared(Protocol):
    """A prompt that is ready for the model."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, those that stand for images included."""
        ...

    @property
    def image_tokens(self) -> int:
        """Tokens that stand for images."""
        ...

    @property
    def input_ids(self) -> Sequence[int]:
        """The tokens themselves."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What ends the answer besides the request's own stop strings."""
        ...

    @property
    def stop_token_ids(self) -> Set[int]:
        """Tokens that end the answer besides the model's own."""
        ...


class Served(Protocol):
    """What answers of one of an engine's models need to know of it."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may have together."""
        ...

    @property
    def end_token_ids(self) -> Set[int]:
        """Tokens that end an answer."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids to text, special tokens left out. Called on the model's thread."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for. Called on the model's thread."""
        ...


PreparedT = TypeVar("PreparedT", bound=Prepared)


@dataclass(slots=True, eq=False)
class Job(Generic[PreparedT]):
    """An accepted request. ``aborted`` is read by the model's thread before each step."""

    request: GenerationRequest
    served: Served
    ticket: Ticket
    timing: Timing
    # The request's own, so that its id is on the log lines of the other threads too.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    events: asyncio.Queue[GenerationEvent | ParagoneError] = field(default_factory=asyncio.Queue)
    aborted: threading.Event = field(default_factory=threading.Event)
    prepared: PreparedT | None = None
    reuse: Reuse = field(default_factory=Reuse)  # the model's thread's

    @property
    def prompt(self) -> PreparedT:
        """The prompt of a job that runs."""
        if self.prepared is None:
            raise RuntimeError("a request runs only when it is prepared")
        return self.prepared

    @property
    def deadline(self) -> float | None:
        """When its answer has to be complete, on the engine's clock; None: whenever."""
        seconds = self.request.timeout_seconds
        return None if seconds is None else self.timing.arrived + seconds

    def too_late(self) -> DeadlineError:
        """Why it was given up at its deadline."""
        tokens = self.timing.tokens
        where = f"after {tokens} tokens" if tokens else "before the first token"
        return DeadlineError(
            f"The request's timeout of {self.request.timeout_seconds:g} s was over {where}; give "
            f"it more time, ask for fewer tokens, or come back when this worker is less busy",
            param="timeout",
        )

    @property
    def max_answer_tokens(self) -> int:
        """The most tokens that its answer may have: what was asked for, or what fits."""
        room = self.served.context_length - self.prompt.prompt_tokens
        asked = self.request.sampling.max_tokens
        return room if asked is None else min(room, asked)

    @property
    def expected_tokens(self) -> int:
        """The tokens that it is let in for, prompt and answer.

        Where nobody said how long the answer may get, it is let in for the beginning: most answers
        end long before the context, and one that does not may have to give way for a while.
        """
        answer = self.max_answer_tokens
        if self.request.sampling.max_tokens is None:
            answer = min(answer, FIRST_ANSWER_TOKENS)
        return self.prompt.prompt_tokens + answer

    def finished(self, answer: Answer, now: float) -> Finished:
        """Its last event; an answer that has not ended by itself was aborted."""
        prompt = self.prompt
        usage = Usage(
            prompt_tokens=prompt.prompt_tokens,
            completion_tokens=answer.token_count,
            total_tokens=prompt.prompt_tokens + answer.token_count,
            prompt_tokens_details=PromptTokensDetails(
                image_tokens=prompt.image_tokens, cached_tokens=self.reuse.cached_tokens
            ),
        )
        reason = answer.finish_reason or FinishReason.ABORT
        metrics = self.timing.metrics(now)
        hits, encoded = self.reuse.image_cache_hits, self.reuse.encoded_images
        if hits or encoded:
            metrics = metrics.model_copy(update={"image_cache_hits": hits})
        return Finished(reason, usage, metrics, answer.stop_reason)


def shutting_down() -> DrainingError:
    """Why a request that had not begun was given up."""
    return DrainingError(
        "This worker is shutting down and had not begun this request; send it again",
        retry_after_seconds=1,
    )


def internal_error(exc: Exception, doing: str, request: GenerationRequest) -> InternalError:
    """A bug, as a client may see it; its traceback goes to the log."""
    _log.error("%s failed while %s for %s", request.model, doing, request.request_id, exc_info=exc)
    return InternalError(
        f"{type(exc).__name__} while {doing}; the worker's log has the cause under request id "
        f"{request.request_id}"
    )
