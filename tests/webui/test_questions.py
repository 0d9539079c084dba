"""What the composer and the settings hold, made into a turn or refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from webui.conversation import MAX_TURNS, Conversation, Turn
from webui.questions import (
    RefusedError,
    another_answer,
    new_answers,
    read_overrides,
    read_question,
    read_sampling,
)
from webui.sampling import Overrides, Sampling
from webui.uploads import UploadError, UploadLimits

pytestmark = pytest.mark.anyio
LIMITS = UploadLimits(max_bytes=10**6, max_pixels=10**6)
DEFAULTS: list[object] = ["0", "1", "", "512", "", "", "default", ""]


def _over(*models: str) -> Conversation:
    conversation = Conversation()
    conversation.arrange(list(models))
    return conversation


def _composed(text: str, *files: Path) -> dict[str, Any]:
    return {"text": text, "files": [str(path) for path in files]}


async def test_a_question_awaits_an_answer_in_each_visible_column(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 3)).save(picture)
    conversation = _over("a", "b", "c")
    conversation.num_columns = 2
    composed = _composed("  what?\n", picture)
    turn = await read_question(composed, conversation, LIMITS)
    assert turn.text == "  what?\n"  # exactly as it was typed
    assert {column: answer.model for column, answer in turn.answers.items()} == {0: "a", 1: "b"}
    assert [image.path for image in turn.images] == [picture]
    assert [answer.sampling for answer in turn.answers.values()] == [Sampling(), Sampling()]
    assert conversation.turns == []


@pytest.mark.parametrize(
    ("composed", "reason"),
    [
        (None, "Type a question first"),
        (_composed(" \n"), "Type a question first"),
        (_composed("", Path("a.png")), "Add a question to the image"),
    ],
)
async def test_what_is_no_question_is_refused(composed: dict[str, Any] | None, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        await read_question(composed, _over("a"), LIMITS)


async def test_without_a_model_the_controller_s_trouble_is_the_reason() -> None:
    with pytest.raises(RefusedError, match="No column has a model"):
        await read_question(_composed("hi"), _over(), LIMITS)
    with pytest.raises(RefusedError, match="controller is down"):
        await read_question(_composed("hi"), _over(), LIMITS, problem="the controller is down")


async def test_a_chat_has_an_end() -> None:
    conversation = _over("a")
    conversation.turns = [Turn("x")] * MAX_TURNS
    with pytest.raises(RefusedError, match="press New chat"):
        await read_question(_composed("hi"), conversation, LIMITS)


async def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("hello")
    with pytest.raises(UploadError, match="not an image"):
        await read_question(_composed("hi", text), _over("a"), LIMITS)


def test_an_empty_number_is_none_and_a_typed_one_is_read() -> None:
    sampling = read_sampling(["0.7", "0.9", "40", " ", "42", "Be brief.", "pad", ""])
    assert sampling.max_tokens is None
    assert sampling.seed == 42
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.9, 40)
    assert sampling.image_process_mode == "pad"


@pytest.mark.parametrize(
    ("place", "value", "name"),
    [(0, "7", "temperature"), (1, "0", "top p"), (2, "-2", "top k"), (3, "many", "max tokens"),
     (3, "0", "max tokens"), (4, "1.5", "seed"), (6, "upside-down", "image process mode")],
)  # fmt: skip
def test_a_wrong_setting_is_named(place: int, value: object, name: str) -> None:
    values = list(DEFAULTS)
    values[place] = value
    for read in (read_sampling, read_overrides):
        with pytest.raises(RefusedError, match=f"Settings, {name}: "):
            read(values)


def test_a_column_s_empty_settings_are_the_chat_s() -> None:
    overrides = read_overrides(["0.7", "", "", "", "", "", "", " "])
    assert overrides.given == {"temperature": 0.7}
    chat = Sampling(top_p=0.5, seed=3)
    assert overrides.over(chat) == Sampling(temperature=0.7, top_p=0.5, seed=3)


async def test_drawn_answers_share_a_seed_and_own_seeds_stay() -> None:
    conversation = _over("a", "a", "b")
    conversation.columns[2].overrides = Overrides(seed=3)
    conversation.sampling = Sampling(temperature=0.7)
    first, second, own = new_answers(conversation).values()
    assert first.sampling.seed is not None
    assert (second.sampling.seed, own.sampling.seed) == (first.sampling.seed, 3)
    conversation.is_same_seed = False
    first, second, own = new_answers(conversation).values()
    assert first.sampling.seed != second.sampling.seed
    assert own.sampling.seed == 3
    conversation.sampling = Sampling()  # greedy: nothing is drawn
    assert [answer.sampling.seed for answer in new_answers(conversation).values()] == [
        None,
        None,
        3,
    ]


async def test_another_attempt_uses_what_the_column_has_now() -> None:
    conversation = _over("a", "b")
    conversation.turns = [Turn("x", (), new_answers(conversation))]
    conversation.columns[0].model = "c"
    conversation.columns[0].overrides = Overrides(temperature=1)
    answer = another_answer(conversation, 0)
    assert (answer.model, answer.attempt, answer.sampling.temperature) == ("c", 1, 1)
    assert answer.id != conversation.turns[0].answers[0].id
    with pytest.raises(RefusedError, match="has no model"):
        another_answer(conversation, 5)
