"""The strip of figures and the line of a model's state."""

from __future__ import annotations

import re

import pytest

from controller.protocol.chat import (
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    FinishReason,
    Metrics,
    PromptTokensDetails,
    Usage,
)
from controller.protocol.fleet import LoadProgress, ModelCard, Quantisation, WorkerState
from webui.answer import Answer, AskedModel
from webui.catalogue import Catalogue, ModelStatus
from webui.figures import duration, figures_html, figures_of
from webui.model_view import banner_html, card_html, choices_of, state_html


def _values(answer: Answer | None) -> dict[str, str]:
    return {figure.label: figure.value.replace("\u202f", " ") for figure in figures_of(answer)}


def _chunk(content: str | None = None, **rest: object) -> ChatCompletionChunk:
    finish_reason = rest.pop("finish_reason", None)
    choices = [ChunkChoice(delta=Delta(content=content), finish_reason=finish_reason)]  # type: ignore[arg-type]  # one of the enum
    return ChatCompletionChunk(id="x", created=0, model="m", choices=choices, **rest)  # type: ignore[arg-type]  # fields by name


def test_the_strip_has_the_same_cells_whatever_there_is_to_say() -> None:
    answer = Answer(model="m", asked_at=0.0)
    assert list(_values(None)) == list(_values(answer))
    assert len(figures_of(None)) == 8
    assert set(_values(None).values()) == {"–"}
    assert "\n" not in figures_html(answer)  # Markdown would end the block at a blank line


def test_while_text_arrives_the_page_s_own_clock_stands_in_and_says_so() -> None:
    answer = Answer(model="m", asked_at=10.0)
    assert _values(answer)["finish"] == "waiting"
    for number in range(5):
        answer.take(_chunk("word "), now=10.2 + number * 0.1)
    values = _values(answer)
    assert values["TTFT"] == "≈200 ms"
    assert values["tokens/s"] == "≈10.0"
    assert values["tokens"] == "≈5"
    assert values["finish"] == "writing"
    assert values["queue"] == "–"


def test_the_end_of_an_answer_brings_the_worker_s_own_figures() -> None:
    answer = Answer(model="m", asked_at=10.0)
    answer.take(_chunk("word"), now=10.5)
    metrics = Metrics(queue_time_ms=3.4, time_to_first_token_ms=142.2, tokens_per_second=31.44)
    answer.take(_chunk(finish_reason=FinishReason.LENGTH, metrics=metrics), now=10.6)
    details = PromptTokensDetails(image_tokens=576, cached_tokens=32)
    usage = Usage(
        prompt_tokens=600, completion_tokens=17, total_tokens=617, prompt_tokens_details=details
    )
    answer.take(_chunk(usage=usage), now=10.7)
    answer.finish()
    answer.asked = AskedModel(ModelCard(name="m"), memory_bytes=13_400_000_000)
    assert list(_values(answer).values()) == [
        "3 ms", "142 ms", "31.4", "17", "576", "32/600", "13.4 GB", "length",
    ]  # fmt: skip


def test_an_answer_too_short_for_a_speed_shows_none() -> None:
    answer = Answer(model="m", asked_at=10.0)
    answer.take(_chunk("word", metrics=Metrics(queue_time_ms=0)), now=10.5)
    answer.finish()
    assert _values(answer)["tokens/s"] == "–"
    assert _values(answer)["finish"] == "end"  # the server gave no reason


def test_a_stopped_answer_keeps_the_page_s_estimates() -> None:
    answer = Answer(model="m", asked_at=10.0)
    for number in range(4):
        answer.take(_chunk("word"), now=10.5 + number)
    answer.stop()
    assert _values(answer)["finish"] == "stopped"
    assert _values(answer)["tokens"] == "≈4"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (0.42, "0.4 ms"),
        (41.6, "42 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
        (2311, "2.31 s"),
        (9996, "10 s"),
        (75_300, "75 s"),
    ],
)
def test_a_duration_has_about_three_digits(milliseconds: float, text: str) -> None:
    assert duration(milliseconds).replace("\u202f", " ") == text


def _status(name: str, state: WorkerState = WorkerState.READY, **rest: object) -> ModelStatus:
    card = ModelCard(name=name)
    return ModelStatus(card, state, num_ready=1, running=0, waiting=0, **rest)  # type: ignore[arg-type]  # by name


def _words(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html).strip()


def test_the_state_line_says_why_a_model_cannot_answer() -> None:
    loading = _status(
        "m", WorkerState.LOADING, progress=LoadProgress(phase="vision tower", fraction=0.256)
    )
    failed = _status("m", WorkerState.FAILED, detail="no such file: /models/m")
    assert "loading vision tower 26 %" in _words(state_html("m", Catalogue((loading,))))
    assert "failed: no such file: /models/m" in _words(state_html("m", Catalogue((failed,))))
    assert "draining" in state_html("m", Catalogue((_status("m", WorkerState.DRAINING),)))
    assert "gone" in state_html("m", Catalogue())
    down = Catalogue((_status("m"),), "nothing listens at http://x", "http://x")
    assert "controller unreachable" in state_html("m", down)
    assert "http://x" in _words(banner_html(down))


def test_the_state_line_of_a_ready_model_names_its_weights_and_its_load() -> None:
    card = ModelCard(name="m", quantisation=Quantisation.NF4, adapter="lora")
    busy = ModelStatus(card=card, state=WorkerState.READY, num_ready=2, running=3, waiting=1)
    words = _words(state_html("m", Catalogue((busy,))))
    assert words == "ready · 4-bit · LoRA · 2 workers · 3 running · 1 waiting"


def test_what_a_worker_says_of_itself_cannot_become_html() -> None:
    evil = "<img src=x onerror=alert(1)>"
    failed = _status(evil, WorkerState.FAILED, detail=evil)
    for html in (state_html(evil, Catalogue((failed,))), card_html(evil, Catalogue((failed,)))):
        assert "<img" not in html


def test_a_list_that_must_not_shrink_marks_what_is_gone() -> None:
    catalogue = Catalogue((_status("a"), _status("b")))
    assert choices_of(catalogue, None) == [("a", "a"), ("b", "b")]
    # A column's own model stays on its list while it is away.
    assert choices_of(catalogue, "c") == [("a", "a"), ("b", "b"), ("c", "c")]
    kept = choices_of(catalogue, "a", keep=[("a", "a"), ("z", "z")])
    assert kept == [("a", "a"), ("b", "b"), ("z (gone)", "z")]


def test_a_fixed_list_has_its_models_alone_and_marks_what_is_gone() -> None:
    catalogue = Catalogue((_status("a"), _status("new")), fixed=("a", "b"))
    assert choices_of(catalogue, "a") == [("a", "a"), ("b (gone)", "b")]
    assert choices_of(catalogue, "b") == [("a", "a"), ("b", "b")]


def test_the_card_names_parts_by_their_last_name_and_sizes_shortly() -> None:
    card = ModelCard(
        name="m",
        base="/models/base/",
        parameters=3_712_345,
        weight_bytes=14_849_380,
        dtype="torch.float32",
    )
    status = ModelStatus(card=card, state=WorkerState.READY, num_ready=1, running=0, waiting=0)
    words = _words(card_html("m", Catalogue((status,))))
    assert "3.71 M parameters, 14.8 MB on disk" in words
    assert "full precision, float32" in words
    assert "/models" not in words
