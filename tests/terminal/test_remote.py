"""Terminals against workers on real ports, and against servers that break."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import sys
import termios
from contextlib import suppress

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from controller.protocol.chat import ChatCompletionRequest, ChatMessage, FinishReason
from controller.protocol.errors import BadImageError
from controller.terminal.images import data_uri, image_uri
from controller.terminal.reading import Reading
from controller.terminal.remote import RemoteSource
from controller.terminal.source import AnswerError
from tests.engine.fake_model import FakeModel
from tests.ports import free_port
from tests.waiting import until
from tests.worker.servers import running_worker, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def asked(text: str = "hello", model: str = "fake", **more) -> ChatCompletionRequest:
    messages = [ChatMessage(role="user", content=text)]
    return ChatCompletionRequest(model=model, messages=messages, stream=True, **more)


async def paragone(*words: str, typed: str | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controller.cli",
        *words,
        stdin=asyncio.subprocess.PIPE if typed is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"NO_COLOR": "1"},
    )
    out, err = await process.communicate(typed.encode() if typed is not None else None)
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_streamed_answer_arrives_with_its_figures():
    pieces: list[str] = []
    async with running_worker() as running:
        source = RemoteSource(running.url)
        request = asked(stream_options={"include_usage": True})
        answer = await Reading(pieces.append).read(source.answer(request))
        assert await source.models() == ["fake"]
        await source.aclose()
    assert "".join(pieces) == answer.text == "You said: hello"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage.completion_tokens == len(answer.text) + 1  # and its end
    assert answer.metrics.time_to_first_token_ms > 0


async def test_the_next_address_is_asked_where_one_cannot_be_reached():
    async with running_worker() as running:
        source = RemoteSource(f"http://127.0.0.1:{free_port()}", others=[running.url + "/v1"])
        assert await source.models() == ["fake"]
        assert (await Reading([].append).read(source.answer(asked()))).text == "You said: hello"
        await source.aclose()


async def test_where_none_can_be_reached_all_are_named():
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    source = RemoteSource(urls[0], others=urls[1:])
    with pytest.raises(AnswerError, match=f"nobody answers at {urls[0]}, {urls[1]} "):
        await source.models()
    await source.aclose()


async def test_chat_takes_a_list_of_controllers():
    async with running_worker() as running:
        there = f"http://127.0.0.1:{free_port()},{running.url}"
        status, out, err = await paragone("chat", "--controller", there, "--query", "hello")
    assert (status, err) == (0, "")
    assert "You said: hello" in out


async def test_a_stopped_answer_frees_its_place():
    async with running_worker(FakeModel(lambda _: "x" * 10_000, step_seconds=0.01)) as running:
        source = RemoteSource(running.url)
        stream = source.answer(asked())
        await anext(stream)
        await stream.aclose()
        await until(lambda: running.engine.stats().running == 0)
        await source.aclose()


async def test_errors_keep_the_words_and_the_code_of_who_sent_them():
    async with running_worker() as running:
        source = RemoteSource(running.url)
        with pytest.raises(AnswerError, match="This worker serves 'fake', not 'x'") as caught:
            await anext(source.answer(asked(model="x")))
        await source.aclose()
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "stream_broken"),
        (b"data: nonsense\n\n", "bad_chunk"),
        (
            b'event: error\ndata: {"error": {"message": "", "type": "", "code": "lost"}}\n\n',
            "lost",
        ),
    ],
)
async def test_a_stream_without_an_end_is_an_error(body, code):
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def answer() -> StreamingResponse:
        return StreamingResponse(iter([body]), media_type="text/event-stream")

    async with serving(app) as url:
        source = RemoteSource(url + "/v1")  # people give either
        with pytest.raises(AnswerError) as caught:
            await Reading(lambda _: None).read(source.answer(asked()))
        await source.aclose()
    assert caught.value.code == code


async def test_an_image_may_be_a_file_an_address_or_a_data_uri(tmp_path):
    app = FastAPI()

    @app.get("/a.png")
    async def picture() -> Response:
        return Response(b"\x89PNG")

    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    async with serving(app) as url:
        assert await image_uri(url + "/a.png") == data_uri(b"\x89PNG")
        with pytest.raises(BadImageError, match="answered 404, not an image"):
            await image_uri(url + "/b.png")
    assert await image_uri(str(tmp_path / "a.jpg")) == "data:image/jpeg;base64,/9j/"
    assert await image_uri("data:image/png;base64,AA==") == "data:image/png;base64,AA=="


async def test_a_query_is_answered_and_tells_by_its_status_whether():
    async with running_worker() as running:
        where = ("--controller", running.url)
        assert await paragone("chat", *where, "--query", "hi") == (0, "You said: hi\n", "")
        code, out, err = await paragone("chat", *where, "--model", "x", "--query", "hi")
        assert (code, out) == (1, "")
        assert "This worker serves 'fake', not 'x'" in err
    code, _, err = await paragone("chat", *where, "--query", "hi")
    assert code == 1
    assert "start a fleet with `paragone up FILE`, or name another address" in err


async def test_a_wrong_flag_is_a_usage_error():
    code, _, err = await paragone("chat", "--temperature", "hot")
    assert code == 2
    assert "temperature (from --temperature)" in err


async def test_authorities_that_cannot_be_read_are_a_usage_error(tmp_path):
    code, _, err = await paragone("chat", "--tls-ca", str(tmp_path / "none.pem"), "--query", "x")
    assert code == 2
    assert "--tls-ca: the certificates in" in err


async def test_lines_of_a_pipe_are_questions():
    async with running_worker() as running:
        result = await paragone("chat", "--controller", running.url, typed="a\n/nope\nb")
    assert result[0] == 1
    assert result[1].startswith("You said: a\nYou said: ")


async def test_models_are_compared_and_one_that_fails_does_not_hide_the_others():
    async with running_worker() as running:
        words = ("compare", "--controller", running.url, "--models", "fake,x")
        code, out, _ = await paragone(*words, "--query", "hi")
        assert code == 1
        first, second = out.split("\n\n")
        assert first.splitlines()[:2] == ["fake:", "You said: hi"]
        assert "This worker serves 'fake', not 'x'" in second
        code, out, _ = await paragone(*words, "--json", typed="hi\n")
    assert code == 1
    told = json.loads(out)
    assert told["query"] == "hi"
    assert told["answers"][0]["answer"] == "You said: hi"
    assert told["answers"][0]["usage"]["completion_tokens"] == 13
    assert told["answers"][1]["code"] == "model_not_found"


async def test_all_models_are_compared_at_once():
    # The engine runs one at a time: the second answer begins when the first has ended, and both
    # have been asked by then.
    model = FakeModel(step_seconds=0.01)
    async with running_worker(model) as running:
        words = ("compare", "--controller", running.url, "--models", "fake,fake", "--query", "hi")
        running_ones = asyncio.create_task(paragone(*words))
        await until(lambda: running.engine.stats().waiting == 1)
        assert (await running_ones)[0] == 0


async def test_remote_chat_needs_neither_torch_nor_gradio():
    async with running_worker() as running:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "controller.cli",
            "chat",
            "--controller",
            running.url,
            "--query",
            "hi",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert out == b"You said: hi\n"
    imported = {line.rsplit("|", 1)[-1].strip() for line in err.decode().splitlines()}
    assert "httpx" in imported
    assert not imported & {"torch", "transformers", "gradio", "PIL", "worker", "webui", "fastapi"}


async def test_a_key_is_sent_as_openais_clients_do():
    seen: list[str] = []
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"data": []}

    @app.middleware("http")
    async def note(request, call_next):
        seen.append(request.headers.get("authorization", ""))
        return await call_next(request)

    async with serving(app) as url:
        source = RemoteSource(url, api_key="secret")
        assert await source.models() == []
        await source.aclose()
        for program in ("chat", "compare"):
            code, _, err = await paragone(program, "--controller", url, "--query", "x")
            assert code == 1
            assert err.startswith(f"paragone {program}: {url} has no model that can answer now; ")
    assert seen == ["Bearer secret", "", ""]


async def test_ctrl_c_on_a_terminal_stops_the_answer_and_ctrl_d_leaves(tmp_path):
    model = FakeModel(lambda _: "**x** " + "y" * 1000, step_seconds=0.01)
    async with running_worker(model) as running:
        master, terminal = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controller.cli",
            "chat",
            "--controller",
            running.url,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"},
        )
        os.close(terminal)
        os.set_blocking(master, False)
        seen = b""

        def shows(what: bytes, times: int = 1) -> bool:
            nonlocal seen
            with suppress(OSError):  # nothing to read now
                seen += os.read(master, 65536)
            return seen.count(what) >= times

        await until(lambda: shows(b"> "))
        os.write(master, b"one\n")
        await until(lambda: shows(b"yyyy"))
        os.write(master, b"\x03")
        await until(lambda: shows(b"stopped"))
        await until(lambda: running.engine.stats().running == 0)
        os.write(master, b"two\n")
        await until(lambda: running.engine.stats().running == 1)
        os.write(master, b"\x03")
        await until(lambda: shows(b"stopped", times=2))
        os.write(master, b"\x04")
        assert await process.wait() == 0
        os.close(master)
    assert b"\x1b[1mx\x1b[22m yyyy" in seen  # Markdown, as it came
    assert (tmp_path / "paragone" / "chat_history").read_text() == "one\ntwo\n"
