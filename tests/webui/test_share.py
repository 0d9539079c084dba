"""``--share`` with Gradio's tunnel replaced: a real one needs the internet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from controller.chassis.settings import SettingsError
from tests.ports import free_port
from tests.webui.servers import answers, eventually
from webui.settings import ENV_PREFIX, WebSettings
from webui.share import ShareError, open_tunnel

# Replaces the function that reaches out, and serves; its first word is what the function does.
_SERVE = """
import sys, gradio.networking
def setup_tunnel(host, port, token, server, certificate):
    assert len(token) >= 32 and server is None and certificate is None
    {does}
gradio.networking.setup_tunnel = setup_tunnel
from webui.__main__ import main
sys.exit(main())
"""


def _serve(does: str, folder: Path, *flags: str) -> tuple[int, list[str]]:
    """The page's log until it has said where it is for everybody, or why it is not."""
    port = free_port()
    command = [sys.executable, "-c", _SERVE.format(does=does), "--share", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder / "data"), "--log-format", "pretty", *flags],
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "for everybody" in line or "no public address" in line:
                break
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url, process), what="the page answers")
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stderr.close()
    return port, lines


def test_the_page_says_its_public_address_and_warns_that_nobody_has_to_log_in(
    tmp_path: Path,
) -> None:
    does = 'return f"http://{host}-{port}.gradio.live"'
    port, lines = _serve(does, tmp_path)
    log = "".join(lines)
    assert f"https://127.0.0.1-{port}.gradio.live" in log
    assert "--gradio-auth-path FILE asks for a name" in log
    logins = tmp_path / "logins"
    logins.write_text("ann:sesame")
    _, lines = _serve(does, tmp_path, "--gradio-auth-path", str(logins), "--host", "0.0.0.0")
    assert "--gradio-auth-path" not in "".join(lines)
    assert "https://127.0.0.1-" in lines[-1]  # not 0.0.0.0, where nobody can connect to


def test_without_a_tunnel_the_page_serves_on_and_says_what_else_there_is(tmp_path: Path) -> None:
    port, lines = _serve('raise RuntimeError("Could not get share link.")', tmp_path)
    said = next(line for line in lines if "no public address" in line)
    assert "ERROR" in said
    for part in (
        "Could not get share link",
        f"goes on at http://127.0.0.1:{port}",
        "frpc",
        "GRADIO_SHARE_SERVER_ADDRESS",
        "ssh -R",
    ):
        assert part in said


def test_the_cause_behind_a_failure_is_said_too() -> None:
    def unreachable(*_: object) -> NoReturn:
        raise RuntimeError("No link.") from OSError("name resolution failed")

    with pytest.raises(ShareError, match=r"No link: name resolution failed"):
        open_tunnel("127.0.0.1", 7860, tunnel=unreachable)


def test_a_frp_server_of_ones_own_keeps_the_scheme_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRADIO_SHARE_SERVER_ADDRESS", "frp.example.org:7000")
    found = open_tunnel("::", 7860, tunnel=lambda host, *_: f"http://x.example.org/{host}")
    assert found == "http://x.example.org/::1"


@pytest.mark.parametrize("other", [["--auth-header", "X-Forwarded-User"]])
def test_a_login_that_believes_this_machine_cannot_be_shared(other: list[str]) -> None:
    with pytest.raises(SettingsError, match="anybody could send that header"):
        WebSettings.parse(["--share", *other], program="w", env_prefix=ENV_PREFIX, environ={})
