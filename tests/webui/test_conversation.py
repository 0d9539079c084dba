"""What is kept of a conversation, what is asked of a model, and what a column shows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from webui.chat_view import chat_messages
from webui.conversation import Answer, AnswerState, Conversation, Turn, UploadedImage
from webui.requests import read_data_uris, request_body
from webui.sampling import Sampling
from webui.store import MemoryStore

DATA = b"not looked at here"


def _image(tmp_path: Path, name: str = "a.png") -> UploadedImage:
    path = tmp_path / name
    path.write_bytes(DATA)
    return UploadedImage(path, "image/png", 8, 8)


def _answer(text: str = "", model: str = "m") -> Answer:
    answer = Answer(model=model, asked_at=0.0, text=text)
    answer.finish()
    return answer


def _turn(text: str, *images: UploadedImage, **answers: Answer) -> Turn:
    by_column = {int(key.removeprefix("column_")): answer for key, answer in answers.items()}
    return Turn(text, images, Sampling(), by_column)


def _body(conversation: Conversation, column: int) -> dict[str, Any]:
    uris = read_data_uris(conversation)
    body: dict[str, Any] = json.loads(request_body(conversation, column, uris))
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
    turn = Turn("hi", (), Sampling(system_prompt=" Be brief. "), {0: _answer()})
    messages = _body(Conversation(turns=[turn]), 0)["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}


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
    conversation.columns[0] = "m"
    question, answer = chat_messages(conversation, 0)
    assert [part["type"] for part in question["content"]] == ["file", "text"]
    assert answer["content"][0] == {"type": "text", "text": "  indented\n\ttext "}
    assert "the &lt;worker&gt; was lost" in answer["content"][1]["text"]


def test_an_answer_of_another_model_says_so() -> None:
    conversation = Conversation(turns=[_turn("hi", column_0=_answer("ho", model="old"))])
    conversation.columns[0] = "new"
    _, answer = chat_messages(conversation, 0)
    assert "answered by old" in answer["content"][-1]["text"]


def test_a_new_chat_keeps_the_columns_and_nothing_else() -> None:
    old = Conversation(turns=[_turn("hi", column_0=_answer("ho"))])
    old.arrange(["a", "b", "c"])
    new = old.continued()
    assert (new.columns, new.num_columns, new.turns) == (old.columns, 3, [])
    assert new.id != old.id
    new.columns[0] = "z"
    assert old.columns[0] == "a"


@pytest.mark.anyio
async def test_the_conversation_unused_for_longest_makes_room() -> None:
    store = MemoryStore(capacity=2)
    first, second, third = Conversation(), Conversation(), Conversation()
    await store.put(first)
    await store.put(second)
    assert await store.get(first.id) is first  # used, so the second is now the oldest
    await store.put(third)
    assert await store.get(second.id) is None
    assert await store.get(first.id) is first
    assert await store.get(third.id) is third
    assert await store.get("never seen") is None
