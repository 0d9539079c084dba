"""The strip of figures under a column: what its last answer cost. Always of one height.

The worker's own measurements come with the end of the answer. Until then, and for an answer that
was stopped, the page's clock stands in, marked with ≈.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from webui.conversation import Answer, AnswerState

_NOTHING = "–"
_THIN = "\u202f"  # a narrow space that does not break


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the strip."""

    label: str
    value: str
    explanation: str


def figures_of(answer: Answer | None) -> tuple[Figure, ...]:
    """The cells of the strip, in order; always the same ones."""
    return (
        Figure("queue", _queue(answer), "time in the worker's queue"),
        Figure("TTFT", _first_token(answer), "time to first token, from arrival at the worker"),
        Figure("tokens/s", _rate(answer), "while decoding, the prompt's time not counted"),
        Figure("tokens", _tokens(answer), "tokens of the answer"),
        Figure("image", _image_tokens(answer), "tokens of the prompt that stand for images"),
        Figure("finish", _finish(answer), _finish_explanation(answer)),
    )


def figures_html(answer: Answer | None) -> str:
    """The strip as one line of HTML."""
    cells = "".join(
        f'<div title="{escape(figure.explanation)}"><dt>{escape(figure.label)}</dt>'
        f"<dd>{escape(figure.value)}</dd></div>"
        for figure in figures_of(answer)
    )
    state = answer.state.value if answer is not None else "idle"
    return f'<dl class="figures" data-state="{state}">{cells}</dl>'


def duration(milliseconds: float) -> str:
    """A time in three digits or so: ``0.4 ms``, ``142 ms``, ``2.31 s``, ``75 s``."""
    if milliseconds < 1:
        return f"{milliseconds:.1f}{_THIN}ms" if milliseconds else f"0{_THIN}ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}{_THIN}ms"
    seconds = milliseconds / 1000
    return f"{seconds:.2f}{_THIN}s" if seconds < 9.995 else f"{seconds:.0f}{_THIN}s"


def _queue(answer: Answer | None) -> str:
    if answer is None or answer.metrics is None:
        return _NOTHING
    return duration(answer.metrics.queue_time_ms)


def _first_token(answer: Answer | None) -> str:
    if answer is None:
        return _NOTHING
    if answer.metrics is not None and answer.metrics.time_to_first_token_ms is not None:
        return duration(answer.metrics.time_to_first_token_ms)
    if answer.first_text_at is None:
        return _NOTHING
    return "≈" + duration((answer.first_text_at - answer.asked_at) * 1000)


def _rate(answer: Answer | None) -> str:
    if answer is None:
        return _NOTHING
    if answer.metrics is not None and answer.metrics.tokens_per_second is not None:
        return _number(answer.metrics.tokens_per_second)
    if answer.has_ended and answer.metrics is not None:
        return _NOTHING  # the worker had too few tokens to tell
    if answer.first_text_at is None or answer.last_text_at is None:
        return _NOTHING
    seconds = answer.last_text_at - answer.first_text_at
    if answer.num_pieces < 3 or seconds <= 0:
        return _NOTHING
    return "≈" + _number((answer.num_pieces - 1) / seconds)


def _tokens(answer: Answer | None) -> str:
    if answer is None:
        return _NOTHING
    if answer.usage is not None:
        return str(answer.usage.completion_tokens)
    return f"≈{answer.num_pieces}" if answer.num_pieces else _NOTHING


def _image_tokens(answer: Answer | None) -> str:
    if answer is None or answer.usage is None or answer.usage.prompt_tokens_details is None:
        return _NOTHING
    return str(answer.usage.prompt_tokens_details.image_tokens)


def _finish(answer: Answer | None) -> str:
    if answer is None:
        return _NOTHING
    if answer.state is AnswerState.DONE:
        return answer.finish_reason.value if answer.finish_reason is not None else "end"
    return {
        AnswerState.WAITING: "waiting",
        AnswerState.STREAMING: "writing",
        AnswerState.STOPPED: "stopped",
        AnswerState.FAILED: "error",
        AnswerState.CUT: "cut",
    }[answer.state]


def _finish_explanation(answer: Answer | None) -> str:
    reason = None if answer is None else answer.finish_reason
    return {
        None: "how the answer ended",
        "stop": "the model ended its answer",
        "length": "cut at the limit of tokens, or at the end of the context",
        "abort": "cancelled by the worker",
    }[reason]


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
