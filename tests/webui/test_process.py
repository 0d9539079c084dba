"""The page as a process: its flags, its routes, its manners, its end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.ports import free_port
from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, eventually, web_process
from webui.settings import ENV_PREFIX, WebSettings


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    """Of the page, and of the pretended controller."""
    with (
        ThreadedServer(FakeController(demo_models()).app()) as controller,
        web_process(controller.url, "--max-upload-mib", "1") as (url, _),
    ):
        yield url, controller.url


def _get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=60)


def test_it_is_ready_once_it_has_reached_the_controller(urls: tuple[str, str]) -> None:
    eventually(lambda: _get(urls[0] + "/ready").status_code == 200)
    assert _get(urls[0] + "/health").json() == {"status": "ok"}
    assert "version" in _get(urls[0] + "/version").json()


def test_without_a_controller_it_serves_and_says_why_it_is_not_ready() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with web_process(address) as (url, _):
        eventually(lambda: "cannot be reached" in _get(url + "/ready").text)
        answer = _get(url + "/ready")
        assert answer.status_code == 503
        assert address in answer.json()["reason"]
        assert _get(url + "/").status_code == 200


def test_the_page_names_no_other_host_that_a_browser_would_ask(urls: tuple[str, str]) -> None:
    config = _get(urls[0] + "/config").json()
    assert config["analytics_enabled"] is False
    assert config["theme_hash"]
    assert all(not sheet.startswith("http") for sheet in config["stylesheets"])


def test_what_strangers_should_not_see_is_not_there(urls: tuple[str, str]) -> None:
    assert _get(urls[0] + "/monitoring/summary").status_code in {403, 404}
    assert _get(urls[0] + "/docs").status_code == 404
    api = _get(urls[0] + "/gradio_api/info").json()
    assert api["named_endpoints"] == {}
    assert api["unnamed_endpoints"] == {}
    refused = _get(urls[0] + "/gradio_api/file=/etc/passwd")
    assert refused.status_code == 403
    own_code = Path(sys.modules[WebSettings.__module__].__file__ or "")
    assert _get(urls[0] + f"/gradio_api/file={own_code}").status_code == 403
    assert urls[1] not in _get(urls[0] + "/config").text  # the controller's address stays here


def test_a_file_beyond_the_limit_is_refused_while_it_is_uploaded(urls: tuple[str, str]) -> None:
    files = {"files": b"x" * (2 * 2**20)}
    upload = httpx.post(urls[0] + "/gradio_api/upload", files=files, trust_env=False)
    assert upload.status_code == 413


def test_it_ends_in_order_after_a_signal_although_a_page_is_open(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    written = tmp_path / "log"
    with written.open("wb") as log, web_process(urls[1], log=log) as (url, process):
        heartbeat = httpx.Client(trust_env=False, timeout=None)
        with heartbeat.stream("GET", url + "/gradio_api/heartbeat/tab") as open_page:
            next(open_page.iter_raw())
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0  # the page would stay open for ever
        heartbeat.close()
    text = written.read_text(encoding="utf-8")
    assert "Finished server process" in text
    assert "graceful shutdown exceeded" not in text
    assert "Traceback" not in text


def _run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webui", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_taken_port_and_a_wrong_flag_are_clear_errors(urls: tuple[str, str]) -> None:
    taken = _run("--port", urls[0].rpartition(":")[2])
    assert taken.returncode == 2
    assert "is taken by another process" in taken.stderr
    wrong = _run("--controller-url", "127.0.0.1:21001")
    assert wrong.returncode == 2
    assert "expected an address such as http://127.0.0.1:21001" in wrong.stderr
    folder = _run("--port", "0", "--data-dir", "/dev/null")
    assert folder.returncode == 2
    assert "Give the page a folder that can be written to (--data-dir)" in folder.stderr
    assert "Traceback" not in taken.stderr + wrong.stderr + folder.stderr


def test_llava_s_published_command_line_works() -> None:
    argv = ["--controller", "http://localhost:10000", "--model-list-mode", "reload"]
    settings = WebSettings.parse(argv, program="webui", env_prefix=ENV_PREFIX, environ={})
    assert settings.controller_url == ("http://localhost:10000",)
    argv = ["--controller-url", "http://localhost:21001/", "--concurrency-count", "16"]
    settings = WebSettings.parse(argv, program="webui", env_prefix=ENV_PREFIX, environ={})
    assert settings.controller_url == ("http://localhost:21001",)
    assert settings.concurrency_count == 16


def test_the_key_of_the_controller_is_not_printed() -> None:
    environ = {"PARAGONE_WEBUI_API_KEY": "sesame"}
    settings = WebSettings.parse([], program="webui", env_prefix=ENV_PREFIX, environ=environ)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sesame"
    assert "sesame" not in repr(settings)
