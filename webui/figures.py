"""The strip of figures under a column: what its last answer cost. Always of one height.

The worker's own measurements come with the end of the answer. Until then, and for an answer that
was stopped, the page's clock stands in, marked with ≈.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from webui.answer import Answer, AnswerState
from webui.difference import Difference
from webui.language import ENGLISH, Words

_NOTHING = "–"
_THIN = "\u202f"  # a narrow space that does not break


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the strip."""

    label: str
    value: str
    explanation: str


def figures_of(answer: Answer | None, words: Words = ENGLISH) -> tuple[Figure, ...]:
    """The cells of the strip, in order; always the same ones."""
    return (
        Figure(words("queue"), _queue(answer), words("time in the worker's queue")),
        Figure(
            words("TTFT"),
            _first_token(answer),
            words("time to first token, from arrival at the worker"),
        ),
        Figure(
            words("tokens/s"), _rate(answer), words("while decoding, the prompt's time not counted")
        ),
        Figure(words("tokens"), _tokens(answer), words("tokens of the answer")),
        Figure(
            words("image"),
            _image_tokens(answer),
            words("tokens of the prompt that stand for images"),
        ),
        Figure(
            words("cached"),
            _cached_tokens(answer),
            words("tokens of the prompt that the worker had in its cache, of all"),
        ),
        Figure(
            words("memory"),
            _memory(answer),
            words("of the worker: on its device, or of its process on a CPU"),
        ),
        Figure(words("finish"), _finish(answer, words), _finish_explanation(answer, words)),
    )


def figures_html(answer: Answer | None, words: Words = ENGLISH) -> str:
    """The strip as one line of HTML."""
    cells = "".join(
        f'<div title="{escape(figure.explanation)}"><dt>{escape(figure.label)}</dt>'
        f"<dd>{escape(figure.value)}</dd></div>"
        for figure in figures_of(answer, words)
    )
    state = answer.state.value if answer is not None else "idle"
    return f'<dl class="figures" data-state="{state}">{cells}</dl>'


def agreement_html(found: Difference | None, *, is_reference: bool, words: Words = ENGLISH) -> str:
    """One line on how much an answer agrees with the one that it is compared with."""
    if is_reference:
        text, percent = words("reference of the comparison"), None
    elif found is None:
        text, percent = words("nothing to compare yet"), None
    elif found.agreement is None:
        text, percent = words("too long to compare"), None
    else:
        percent = round(found.agreement * 100)
        text = words("{percent} % of the words agree", percent=percent)
    bar = (
        ""
        if percent is None
        else f'<meter min="0" max="100" value="{percent}" aria-hidden="true">{percent} %</meter>'
    )
    return f'<div class="agreement"><span>{escape(text)}</span>{bar}</div>'


def duration(milliseconds: float) -> str:
    """A time in three digits or so: ``0.4 ms``, ``142 ms``, ``2.31 s``, ``75 s``."""
    if milliseconds < 1:
        return f"{milliseconds:.1f}{_THIN}ms" if milliseconds else f"0{_THIN}ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}{_THIN}ms"
    seconds = milliseconds / 1000
    return f"{seconds:.2f}{_THIN}s" if seconds < 9.995 else f"{seconds:.0f}{_THIN}s"


def size(num_bytes: int) -> str:
    """A size in three digits: ``812 MB``, ``13.4 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale * 0.9995:
            return f"{num_bytes / scale:.3g}{_THIN}{unit}"
    return f"{num_bytes / 1e3:.3g}{_THIN}kB"


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


def _cached_tokens(answer: Answer | None) -> str:
    if answer is None or answer.usage is None or answer.usage.prompt_tokens_details is None:
        return _NOTHING
    return f"{answer.usage.prompt_tokens_details.cached_tokens}/{answer.usage.prompt_tokens}"


def _memory(answer: Answer | None) -> str:
    if answer is None or answer.asked is None or answer.asked.memory_bytes is None:
        return _NOTHING
    return size(answer.asked.memory_bytes)


def _finish(answer: Answer | None, words: Words) -> str:
    if answer is None:
        return _NOTHING
    if answer.state is AnswerState.DONE:
        return answer.finish_reason.value if answer.finish_reason is not None else words("end")
    return {
        AnswerState.WAITING: words("waiting"),
        AnswerState.STREAMING: words("writing"),
        AnswerState.STOPPED: words("stopped"),
        AnswerState.FAILED: words("error"),
        AnswerState.CUT: words("cut"),
    }[answer.state]


def _finish_explanation(answer: Answer | None, words: Words) -> str:
    reason = None if answer is None else answer.finish_reason
    return {
        None: words("how the answer ended"),
        "stop": words("the model ended its answer"),
        "length": words("cut at the limit of tokens, or at the end of the context"),
        "abort": words("cancelled by the worker"),
    }[reason]


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
