"""The whole demo as subprocesses: what it answers, and what it survives."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.demo_fleet import DemoFleet
from tests.fleet.running import eventually

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "webui" / "examples"


@dataclass(frozen=True)
class Question:
    """A question that the page offers, with the right answers."""

    image: Path
    text: str
    answers: dict[str, str]  # by language

    def answer_of(self, model: str) -> str:
        return self.answers["zh" if model.endswith("-zh") else "en"]

    def messages(self) -> list[Any]:
        data = base64.b64encode(self.image.read_bytes()).decode()
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        return [{"role": "user", "content": [image, {"type": "text", "text": self.text}]}]


def questions() -> list[Question]:
    content = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    return [
        Question(
            image=EXAMPLES / example["image"],
            text=prompt["prompt"],
            answers={"en": prompt["answer_en"], "zh": prompt["answer_zh"]},
        )
        for example in content["examples"]
        for prompt in example["prompts"]
    ]


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=url + "/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False, timeout=120),
    )


def ask(url: str, model: str, question: Question) -> str:
    with client_of(url) as client:
        reply = client.chat.completions.create(
            model=model, messages=question.messages(), temperature=0
        )
    return reply.choices[0].message.content or ""


def post(url: str, model: str, text: str = "What can you do?", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(url + "/v1/chat/completions", json=body, trust_env=False, timeout=120)


class Load:
    """Keeps asking models until it is stopped, and counts what came of it."""

    def __init__(self, url: str, models: list[str]) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url, name)) for name in models]
        for thread in self._threads:
            thread.start()

    def _run(self, url: str, model: str) -> None:
        while not self._stopped.is_set():
            try:
                text = post(url, model, stream=True, temperature=0).text
            except httpx.HTTPError as exc:
                self.failures.append(f"{model}: {exc!r}")
                continue
            if text.rstrip().endswith("data: [DONE]"):
                self.answered[model] += 1
            else:
                self.failures.append(f"{model}: {text[-300:]}")

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(
    "model", ["demo-llava", "demo-llava-8bit", "demo-llava-4bit", "demo-llava-zh"]
)
def test_every_question_that_the_page_offers_is_answered_rightly(
    demo_fleet: DemoFleet, model: str
) -> None:
    wrong = {}
    for question in questions():
        answer = ask(demo_fleet.controller_url, model, question)
        if answer != question.answer_of(model):
            wrong[f"{question.image.name}: {question.text}"] = answer
    assert wrong == {}


def test_the_list_is_the_live_models_with_what_is_known_of_them(demo_fleet: DemoFleet) -> None:
    with client_of(demo_fleet.controller_url) as client:
        cards = {model.id: (model.model_extra or {})["metadata"] for model in client.models.list()}
    assert list(cards) == sorted(demo_fleet.models)
    assert {name: card["card"]["quantisation"] for name, card in cards.items()} == {
        "demo-llava": "none",
        "demo-llava-8bit": "8bit",
        "demo-llava-4bit": "4bit",
        "demo-llava-zh": "none",
    }
    for name, card in cards.items():
        assert card["state"] == "ready"
        assert card["worker_count"] == 1
        assert card["card"]["context_length"] == 1024
        assert bool(card["card"].get("adapter")) == (name == "demo-llava-zh")


@pytest.mark.parametrize("through", ["controller", "worker"])
def test_a_stream_of_the_openai_client_has_its_parts_in_order(
    demo_fleet: DemoFleet, through: str
) -> None:
    urls = {"controller": demo_fleet.controller_url, "worker": demo_fleet.worker_urls["demo-llava"]}
    question = questions()[0]
    with client_of(urls[through]) as client:
        chunks = list(
            client.chat.completions.create(
                model="demo-llava",
                messages=question.messages(),
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(choice.delta.content or "" for c in chunks for choice in c.choices)
    assert text == question.answer_of("demo-llava")
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens > 3
    details = usage.prompt_tokens_details
    assert details is not None
    assert details.image_tokens == 64


def test_an_unknown_model_is_404_and_a_bad_image_400_in_openais_shape(
    demo_fleet: DemoFleet,
) -> None:
    with client_of(demo_fleet.controller_url) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(
                model="nobody", messages=[{"role": "user", "content": "x"}]
            )
        assert unknown.value.code == "model_not_found"
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,bm8gaW1hZ2U="}}
        messages: list[Any] = [{"role": "user", "content": [image]}]
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="demo-llava", messages=messages)
        assert bad.value.code == "bad_image"


def test_a_killed_worker_leaves_the_list_and_comes_back_while_others_go_on(
    demo_fleet: DemoFleet,
) -> None:
    victim = "demo-llava-4bit"
    others = [name for name in demo_fleet.models if name != victim]
    old = demo_fleet.pids[victim]
    load = Load(demo_fleet.controller_url, others)
    try:
        eventually(lambda: set(load.answered) == set(others), what="others answer")
        os.kill(old, signal.SIGKILL)
        eventually(lambda: victim not in demo_fleet.listed(), what=f"{victim} is gone")
        # Known, and served by nobody now; perhaps its successor is loading already.
        refused = post(demo_fleet.controller_url, victim)
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] in {"no_live_worker", "model_loading"}
        before = load.answered.copy()
        demo_fleet.wait_for_process(victim, other_than=old)
        demo_fleet.wait_until_complete()
        assert post(demo_fleet.controller_url, victim).status_code == 200, "it is routed to again"
        eventually(
            lambda: all(load.answered[name] > before[name] for name in others),
            what="others have gone on",
        )
    finally:
        load.stop()
    assert load.failures == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux adopts orphans")
def test_workers_are_forked_from_one_process_and_answer_on_when_that_is_killed(
    demo_fleet: DemoFleet,
) -> None:
    victim = "demo-llava-zh"
    old = demo_fleet.pids
    server = _fork_server_of(demo_fleet)
    assert server is not None
    for name in demo_fleet.models:
        # The system shows the environment that a process was started with: the fork server's.
        assert "PARAGONE_WORKER_LOG_FORMAT" not in psutil.Process(old[name]).environ()
    server.kill()
    for name, url in demo_fleet.worker_urls.items():
        assert post(url, name).status_code == 200
    os.kill(old[victim], signal.SIGKILL)
    demo_fleet.wait_for_process(victim, other_than=old[victim])
    demo_fleet.wait_until_complete()
    assert post(demo_fleet.worker_urls[victim], victim).status_code == 200
    assert _fork_server_of(demo_fleet) not in {None, server}
    assert {**demo_fleet.pids, victim: 0} == {**old, victim: 0}, "nobody else was started again"


def _fork_server_of(fleet: DemoFleet) -> psutil.Process | None:
    for child in psutil.Process(fleet.supervisor_pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "worker.fork_server" in child.cmdline():
                return child
    return None


def test_without_a_controller_workers_answer_and_the_list_is_back_after_it(
    demo_fleet: DemoFleet,
) -> None:
    old = demo_fleet.pids["controller"]
    workers = {name: demo_fleet.pids[name] for name in demo_fleet.models}
    os.kill(old, signal.SIGKILL)
    for name, url in demo_fleet.worker_urls.items():
        assert post(url, name).status_code == 200

    def is_up() -> bool:
        try:
            return httpx.get(demo_fleet.controller_url + "/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    demo_fleet.wait_for_process("controller", other_than=old)
    eventually(is_up, what="the controller answers")
    demo_fleet.wait_until_complete()
    assert {name: demo_fleet.pids[name] for name in demo_fleet.models} == workers
