"""What is kept of a conversation, what is asked of a model, and what a column shows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from webui.chat_view import chat_messages
from webui.conversation import (
    Answer,
    AnswerState,
    Conversation,
    Feedback,
    Rating,
    Turn,
    UploadedImage,
)
from webui.requests import body_of, build_request, images_of, read_data_uris, with_images
from webui.sampling import Overrides, Sampling

DATA = b"not looked at here"


def _image(tmp_path: Path, name: str = "a.png") -> UploadedImage:
    path = tmp_path / name
    path.write_bytes(DATA)
    return UploadedImage(path, "image/png", 8, 8, len(DATA), digest=name)


def _answer(text: str = "", model: str = "m", **sampling: Any) -> Answer:
    answer = Answer(model=model, asked_at=0.0, text=text, sampling=Sampling(**sampling))
    answer.finish()
    return answer


def _turn(text: str, *images: UploadedImage, **answers: Answer) -> Turn:
    by_column = {int(key.removeprefix("column_")): answer for key, answer in answers.items()}
    return Turn(text, images, by_column)


def _body(conversation: Conversation, column: int) -> dict[str, Any]:
    uris = read_data_uris(images_of(conversation))
    body: dict[str, Any] = json.loads(body_of(build_request(conversation, column), uris))
    return body


def test_a_request_holds_what_was_set_and_nothing_else() -> None:
    conversation = Conversation(turns=[_turn("hello", column_0=_answer(model="x"))])
    assert _body(conversation, 0) == {
        "model": "x",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 512,
    }


def test_images_stay_in_the_conversation_byte_for_byte(tmp_path: Path) -> None:
    image = _image(tmp_path)
    conversation = Conversation(
        turns=[_turn("what?", image, column_0=_answer("a cat")), _turn("sure?", column_0=_answer())]
    )
    first, second, third = _body(conversation, 0)["messages"]
    url = first["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == DATA
    assert first["content"][1] == {"type": "text", "text": "what?"}
    assert second == {"role": "assistant", "content": "a cat"}
    assert third == {"role": "user", "content": "sure?"}


def test_a_turn_without_an_answer_is_left_out_but_its_image_goes_on(tmp_path: Path) -> None:
    image = _image(tmp_path)
    turns = [
        _turn("what?", image, column_0=_answer("a cat"), column_1=_answer("")),
        _turn("sure?", column_0=_answer(), column_1=_answer(), column_2=_answer()),
    ]
    conversation = Conversation(turns=turns)
    for column in (1, 2):  # one failed before a word, the other was not there yet
        [message] = _body(conversation, column)["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        assert message["content"][1]["text"] == "sure?"


def test_roles_alternate_after_a_partial_answer() -> None:
    stopped = Answer(model="m", asked_at=0.0, text="half an ans")
    stopped.stop()
    turns = [_turn("one", column_0=stopped), _turn("two", column_0=_answer())]
    conversation = Conversation(turns=turns)
    roles = [message["role"] for message in _body(conversation, 0)["messages"]]
    assert roles == ["user", "assistant", "user"]


def test_a_system_prompt_comes_first() -> None:
    turn = _turn("hi", column_0=_answer(system_prompt=" Be brief. "))
    messages = _body(Conversation(turns=[turn]), 0)["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}


def test_a_request_is_kept_without_the_images_bytes_and_goes_out_with_them(tmp_path: Path) -> None:
    image = _image(tmp_path)
    conversation = Conversation(turns=[_turn("what?", image, column_0=_answer())])
    kept = build_request(conversation, 0)
    assert kept["messages"][0]["content"][0]["image_url"] == {"url": "paragone-image:a.png"}
    sent = with_images(kept, {"paragone-image:a.png": "data:image/png;base64,AAAA"})
    url = sent["messages"][0]["content"][0]["image_url"]["url"]
    assert url == "data:image/png;base64,AAAA"
    assert "AAAA" not in json.dumps(kept)


def test_every_setting_of_a_column_reaches_its_request() -> None:
    overrides = Overrides(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_tokens=7,
        seed=3,
        image_process_mode="pad",
        chat_template="plain",
    )
    sampling = overrides.over(Sampling(temperature=0.1, system_prompt="Be brief."))
    answer = Answer("m", asked_at=0.0, sampling=sampling)
    body = _body(Conversation(turns=[Turn("hi", (), {0: answer})]), 0)
    assert body.items() >= overrides.given.items()
    assert body["messages"][0]["content"] == "Be brief."


def test_an_answer_that_was_cut_short_goes_along_to_be_continued() -> None:
    answer = Answer(model="m", asked_at=0.0, text="half an ans")
    answer.stop()
    assert answer.can_continue
    answer.resume(now=1.0)
    body = _body(Conversation(turns=[_turn("hi", column_0=answer)]), 0)
    assert body["messages"][-1] == {"role": "assistant", "content": "half an ans"}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    answer.finish()
    assert not _answer("whole").finish_reason


@pytest.mark.parametrize("end", ["finish", "stop", "fail"])
def test_an_answer_ends_once(end: str) -> None:
    answer = Answer(model="m", asked_at=0.0)
    ends = {"finish": answer.finish, "stop": answer.stop, "fail": lambda: answer.fail("why")}
    ends[end]()
    state, version = answer.state, answer.version
    for other in ends.values():
        other()
    assert (answer.state, answer.version) == (state, version)
    assert (answer.error is not None) == (state is AnswerState.FAILED)


def test_a_column_shows_text_exactly_and_its_error_below_it(tmp_path: Path) -> None:
    failed = Answer(model="m", asked_at=0.0, text="  indented\n\ttext ")
    failed.fail("the <worker> was lost")
    conversation = Conversation(turns=[_turn("what?", _image(tmp_path), column_0=failed)])
    conversation.columns[0].model = "m"
    question, answer = chat_messages(conversation, 0)
    picture, text, edit = (part["text"] for part in question["content"])
    assert 'src="images/a.png/small"' in picture
    assert text == "what?"
    assert 'class="edit-turn" value="0"' in edit
    assert answer["content"][0] == {"type": "text", "text": "  indented\n\ttext "}
    assert "the &lt;worker&gt; was lost" in answer["content"][1]["text"]
    assert "Ask again" in answer["content"][1]["text"]


def test_an_answer_of_another_model_says_so() -> None:
    conversation = Conversation(turns=[_turn("hi", column_0=_answer("ho", model="old"))])
    conversation.columns[0].model = "new"
    _, answer = chat_messages(conversation, 0)
    assert "answered by old" in answer["content"][-1]["text"]


def test_a_new_chat_keeps_the_columns_and_their_settings_and_nothing_else() -> None:
    old = Conversation(owner="ann", turns=[_turn("hi", column_0=_answer("ho"))])
    old.arrange(["a", "b", "c"])
    old.columns[1].overrides = Overrides(seed=3)
    new = old.continued()
    assert (new.columns, new.num_columns, new.turns) == (old.columns, 3, [])
    assert (new.owner, new.id != old.id) == ("ann", True)
    new.columns[0].model = "z"
    assert old.columns[0].model == "a"


def test_a_branch_has_the_earlier_turns_and_leaves_the_old_chat_alone() -> None:
    answer = _answer("ho")
    answer.judge(Feedback(Rating.UP))
    old = Conversation(turns=[_turn("hi", column_0=answer), _turn("bye", column_0=_answer())])
    branch = old.branched(1)
    [turn] = branch.turns
    copy = turn.answers[0]
    assert (turn.text, copy.text, branch.branched_from) == ("hi", "ho", old.id)
    assert copy.id != answer.id
    assert copy.feedback == Feedback()  # it was given once
    assert len(old.turns) == 2


def test_columns_move_without_their_answers_moving() -> None:
    conversation = Conversation()
    conversation.arrange(["a", "b", "c"])

    def shown() -> list[str | None]:
        return [conversation.columns[lane].model for lane in conversation.visible]

    assert conversation.swap(0, step=1)
    assert shown() == ["b", "a", "c"]
    assert not conversation.swap(1, step=-1)  # it is the first now
    assert not conversation.swap(2, step=1)
    assert conversation.remove_column(0)
    assert shown() == ["b", "c"]
    assert conversation.add_column()
    assert shown() == ["b", "c", "a"]
    assert conversation.columns[0].model == "a"
    for _ in range(3):
        conversation.add_column()
    assert not conversation.add_column()
    for lane in list(conversation.visible[1:]):
        assert conversation.remove_column(lane)
    assert not conversation.remove_column(conversation.visible[0])
