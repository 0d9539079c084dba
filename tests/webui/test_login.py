"""Who gets in: with a password, by a proxy's word, or nobody; and no route is left open."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.webui.fake_controller import FakeController, demo_models
from tests.webui.servers import ThreadedServer, web_process
from webui.login import LoginError, read_logins

_EVERY_KIND = [
    "/",
    "/history",
    "/cluster",
    "/cluster/live",
    "/leaderboard",
    "/votes.jsonl",
    "/battle",
    "/export/x.json",
    "/images/" + "0" * 64,
    "/config",
    "/gradio_api/info",
    "/gradio_api/startup-events",
    "/monitoring",
    "/monitoring/summary",
]


def _asked(url: str, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, headers=headers)


def test_with_passwords_only_who_logs_in_is_answered(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    file.write_text("ann:sesame, bob:with:colon\n")
    fake = FakeController(demo_models())
    flags = ("--gradio-auth-path", str(file))
    with (
        ThreadedServer(fake.app()) as controller,
        web_process(controller.url, *flags) as (url, _),
        _asked(url) as http,
    ):
        assert http.get("/health").status_code == 200
        for path in _EVERY_KIND:
            assert http.get(path).status_code == 401, path
        joined = http.post("/gradio_api/queue/join", json={"fn_index": 0, "data": []})
        assert joined.status_code == 401
        for name, password in (("ann", "wrong"), ("nobody", ""), ("bob", "with")):
            data = {"username": name, "password": password}
            assert http.post("/login", data=data).status_code == 401
        form = http.get("/history", headers={"accept": "text/html"})
        assert 'action="./login"' in form.text
        entered = http.post("/login", data={"username": "bob", "password": "with:colon"})
        assert entered.status_code == 303
        assert "httponly" in entered.headers["set-cookie"].lower()
        for path in ("/", "/history", "/config"):
            assert http.get(path).status_code == 200, path
        assert http.get("/monitoring/summary").status_code != 200
        http.get("/logout")
        assert http.get("/history").status_code == 401


def test_with_a_header_only_whom_a_proxy_names_is_answered() -> None:
    fake = FakeController(demo_models())
    with ThreadedServer(fake.app()) as controller:
        flags = ("--auth-header", "X-Forwarded-User")
        with web_process(controller.url, *flags) as (url, _), _asked(url) as http:
            for path in _EVERY_KIND:
                assert http.get(path).status_code == 401, path
            named = {"x-forwarded-user": "ann"}
            assert http.get("/history", headers=named).status_code == 200
            assert http.get("/config", headers=named).status_code == 200
        # This machine is none of the proxies then, whatever it says of itself.
        flags = (*flags, "--trusted-proxies", "10.0.0.1")
        with web_process(controller.url, *flags) as (url, _), _asked(url) as http:
            named["x-forwarded-for"] = "10.0.0.1"
            assert http.get("/history", headers=named).status_code == 401


@pytest.mark.parametrize("content", ["", "ann", "ann:", ":sesame", "ann:sesame\nbob"])
def test_a_wrong_file_of_logins_is_refused_without_repeating_it(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "logins"
    file.write_text(content)
    with pytest.raises(LoginError) as caught:
        read_logins(file)
    assert "sesame" not in str(caught.value)
