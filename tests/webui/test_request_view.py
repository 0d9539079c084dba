"""The exact request as a command and as a program that send the same."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.protocol.fleet import ModelCard, Quantisation
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer
from webui.answer import Answer, AskedModel
from webui.conversation import Conversation, Turn, UploadedImage
from webui.language import ENGLISH
from webui.request_view import KEY_VARIABLE, as_curl, as_python, file_names, request_html
from webui.requests import build_request
from webui.sampling import Sampling

NASTY = 'It\'s $HOME, `id`, "quoted", back\\slash,\nnew line, 图, <b>'
DATA = b"\x89PNG not really"


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Answer, list[UploadedImage]]:
    path = tmp_path / "kept.png"
    path.write_bytes(DATA)
    image = UploadedImage(path, "image/png", 1, 1, len(DATA), "d" * 64, "photo of mine.png")
    sampling = Sampling(temperature=0.5, seed=7, top_k=3, system_prompt="Be brief.")
    answer = Answer("demo-llava", asked_at=0.0, sampling=sampling)
    answer.request = build_request(Conversation(turns=[Turn(NASTY, (image,), {0: answer})]), 0)
    card = ModelCard(name="demo-llava", revision="abc123", quantisation=Quantisation.NF4)
    answer.asked = AskedModel(card)
    return answer, [image]


@pytest.mark.parametrize("kind", ["curl", "python"])
def test_what_is_copied_sends_the_same_request(
    asked: tuple[Answer, list[UploadedImage]], tmp_path: Path, kind: str
) -> None:
    if kind == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    answer, images = asked
    names = file_names(images)
    assert answer.request is not None
    (tmp_path / "image-1.png").write_bytes(DATA)
    fake = FakeController(demo_models(pieces_per_second=1000))
    with ThreadedServer(fake.app()) as server:
        if kind == "curl":
            text = as_curl(answer.request, names, base_url=server.url, has_key=False)
            command = ["bash", "-c", text]
        else:
            text = as_python(answer.request, names, base_url=server.url, has_key=False)
            command = [sys.executable, "-c", text]
        environ = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "NO_PROXY": "*"}
        run = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
    assert run.returncode == 0, run.stderr
    assert "circle" in run.stdout
    [exchange] = fake.exchanges
    sent: dict[str, Any] = exchange.request.model_dump(mode="json", exclude_unset=True)
    url = sent["messages"][1]["content"][0]["image_url"].pop("url")
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")) == DATA
    wanted = json.loads(json.dumps(answer.request))
    wanted["messages"][1]["content"][0]["image_url"].pop("url")
    assert sent == wanted


def test_a_key_is_named_and_never_shown(asked: tuple[Answer, list[UploadedImage]]) -> None:
    answer, images = asked
    assert answer.request is not None
    names = file_names(images)
    for render in (as_curl, as_python):
        text = render(answer.request, names, base_url="http://c", has_key=True)
        assert KEY_VARIABLE in text
        assert KEY_VARIABLE not in render(answer.request, names, base_url="http://c", has_key=False)


def test_the_panel_says_who_was_asked_and_how(asked: tuple[Answer, list[UploadedImage]]) -> None:
    answer, images = asked
    html = request_html(
        answer,
        images,
        base_url="http://c",
        has_key=False,
        prompt="USER: <image>\nhi",
        prompt_problem=None,
        words=ENGLISH,
    )
    for fact in ("abc123", "4bit", ">7<", "USER: &lt;image&gt;&#10;hi", f"images/{'d' * 64}"):
        assert fact in html
    assert "\n" not in html  # Markdown would end the block at a blank line
