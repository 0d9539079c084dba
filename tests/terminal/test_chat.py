"""A chat over a pipe, with a source that says what it is told to."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from controller.terminal.chat import Chat
from controller.terminal.images import data_uri
from controller.terminal.screen import Screen
from controller.terminal.settings import ENV_PREFIX, RemoteChatSettings
from controller.terminal.source import AnswerError
from tests.terminal.sources import FakeSource

PNG = b"\x89PNG and more"


class Talk:
    """A chat that has ended."""

    def __init__(self, source: FakeSource, typed: str, *flags: str) -> None:
        settings = RemoteChatSettings.parse(flags, program="x", env_prefix=ENV_PREFIX, environ={})
        out, remarks = io.StringIO(), io.StringIO()
        screen = Screen(out, remarks, {})
        with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
            patch.setattr("sys.stdin", io.StringIO(typed))
            self.status = Chat(source, "one", settings, screen, runner).run(None)
        self.out, self.remarks = out.getvalue(), remarks.getvalue()


def said(source: FakeSource, index: int = -1) -> list[tuple[str, object]]:
    return [(message.role, message.content) for message in source.asked[index].messages]


def test_a_pipe_gets_the_answers_and_nothing_else():
    talk = Talk(FakeSource(["a-b", "c"]), "one\n\ntwo\n")
    assert (talk.out, talk.remarks, talk.status) == ("a-b\nc\n", "", 0)


def test_each_question_comes_with_the_conversation_before_it():
    source = FakeSource(["a", "b"])
    Talk(source, "one\ntwo\n", "--system", "be kind")
    assert said(source) == [
        ("system", "be kind"),
        ("user", "one"),
        ("assistant", "a"),
        ("user", "two"),
    ]


def test_a_query_is_answered_once():
    source = FakeSource(["yes"])
    talk = Talk(source, "not read\n", "--query", "is it?")
    assert (talk.out, talk.status, len(source.asked)) == ("yes\n", 0, 1)


def test_a_query_without_an_answer_is_a_failure():
    talk = Talk(FakeSource([AnswerError("full", code="queue_full")]), "", "--query", "x")
    assert (talk.out, talk.remarks, talk.status) == ("", "one: full\n", 1)


def test_ctrl_c_stops_the_answer_and_not_the_chat():
    source = FakeSource(["half INTERRUPT more", "next"])
    talk = Talk(source, "one\ntwo\n")
    assert talk.out == "half\nnext\n"
    assert talk.remarks == "stopped\n"
    assert source.ended == 2  # the stopped answer was closed
    assert said(source) == [("user", "one"), ("assistant", "half"), ("user", "two")]


def test_a_question_that_failed_can_be_asked_again_and_keeps_its_images(tmp_path):
    (tmp_path / "a b.png").write_bytes(PNG)
    source = FakeSource([AnswerError("lost", code="worker_lost"), "a", "b"])
    talk = Talk(source, f"/image {tmp_path}/a b.png\none\n/retry\n/retry\n")
    assert (talk.out, talk.status) == ("a\nb\n", 1)
    assert said(source, 0) == said(source, 1) == said(source, 2)
    [(_, parts)] = said(source)
    assert [part.type for part in parts] == ["image_url", "text"]
    assert parts[0].image_url.url == data_uri(PNG)


def test_another_question_takes_the_place_of_one_that_failed(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    source = FakeSource([AnswerError("lost", code="worker_lost"), "a"])
    Talk(source, "one\ntwo\n", "--image-file", str(tmp_path / "a.png"))
    [(_, parts)] = said(source)
    assert [getattr(part, "text", "image") for part in parts] == ["image", "two"]


def test_a_missing_image_is_named_before_anything_is_asked(tmp_path):
    source = FakeSource([])
    talk = Talk(source, "one\n", "--image-file", str(tmp_path / "none.png"))
    assert talk.status == 1
    assert "none.png cannot be read: No such file or directory" in talk.remarks
    assert source.asked == []


def test_the_conversation_goes_on_with_another_model():
    source = FakeSource(["a"])
    talk = Talk(source, "/models\n/model three\n/model two\none\n")
    assert talk.out == "* one\n  two\na\n"
    assert "no model 'three' can answer now; there are one, two" in talk.remarks
    assert source.asked[0].model == "two"


def test_a_conversation_is_saved_and_no_file_is_overwritten(tmp_path):
    file = tmp_path / "talk.json"
    talk = Talk(FakeSource(["a"]), f"one\n/save {file}\n/save {file}\n/save {tmp_path}/t.md\n")
    assert json.loads(file.read_text()) == {
        "model": "one",
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "a"},
        ],
    }
    assert (tmp_path / "t.md").read_text() == "**user:** one\n\n**one:** a\n"
    assert "is there already" in talk.remarks


def test_new_forgets_all_but_the_system_message():
    source = FakeSource(["a", "b"])
    Talk(source, "/system s\none\n/new\ntwo\n")
    assert said(source) == [("system", "s"), ("user", "two")]


def test_two_slashes_begin_a_text_with_one():
    source = FakeSource(["a"])
    talk = Talk(source, "//etc\n/etc\n")
    assert said(source) == [("user", "/etc")]
    assert "there is no command /etc" in talk.remarks


def test_a_line_that_ends_with_a_backslash_goes_on():
    source = FakeSource(["a"])
    Talk(source, "one\\\ntwo\n")
    assert said(source) == [("user", "one\ntwo")]


def test_only_what_was_said_is_sent():
    source = FakeSource(["a"])
    Talk(source, "", "--query", "x", "--temperature", "0", "--conv-mode", "llava_v1")
    assert json.loads(source.asked[0].model_dump_json(exclude_unset=True)) == {
        "model": "one",
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "max_tokens": 512,
        "chat_template": "llava_v1",
    }


def test_debug_shows_prompt_and_answer_beside_the_answers():
    talk = Talk(FakeSource(["a"]), "", "--query", "x", "--debug")
    assert talk.out == "a\n"
    assert talk.remarks == "prompt: 'PROMPT of 1'\nanswer: 'a'\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_no_control_characters_of_an_answer():
    out = Terminal()
    screen = Screen(out, io.StringIO(), {"TERM": "dumb"})
    screen.piece("a\x1b]0;title\x07b\x9b2J\tc\r\n")
    screen.end()
    assert out.getvalue() == "a]0;titleb2J\tc\n"


def test_no_color_means_no_styles():
    out = Terminal()
    screen = Screen(out, io.StringIO(), {"NO_COLOR": "1"})
    screen.piece("**a**")
    screen.end()
    screen.figures("1 s")
    assert out.getvalue() == "**a**\n(1 s)\n"
