"""Adapters come and go over HTTP, where that is allowed, and controllers hear of it."""

import pytest

from tests.engine.fake_model import FakeModel
from tests.waiting import until
from tests.worker.servers import FakeController, running_worker, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path):
    for name in ("base", "zh", "bad"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "models" / "circle").symlink_to(tmp_path / "models" / "circle")
    return tmp_path / "models"


def load(running, name, path):
    body = {"lora_name": name, "lora_path": str(path)}
    return running.client.post("/v1/load_lora_adapter", json=body)


def unload(running, name):
    return running.client.post("/v1/unload_lora_adapter", json={"lora_name": name})


async def names(running):
    return [entry["id"] for entry in (await running.client.get("/v1/models")).json()["data"]]


async def test_an_adapter_is_served_until_it_is_unloaded_and_controllers_know(root):
    controller = FakeController()
    async with (
        serving(controller.app) as address,
        running_worker(controllers=(address,), adapter_root=root, heartbeat_seconds=60) as running,
    ):
        reply = await load(running, "zh", root / "zh")
        assert (reply.status_code, reply.text) == (
            200,
            "Success: LoRA adapter 'zh' added successfully.",
        )
        assert await names(running) == ["fake", "zh"]
        assert (await running.ask(model="zh")).status_code == 200

        def told():
            return [card.name for card in controller.calls[-1][1].status.models]

        await until(lambda: told() == ["fake", "zh"])
        assert (await load(running, "zh", "zh")).status_code == 409
        assert (await unload(running, "zh")).status_code == 200
        assert await names(running) == ["fake"]
        await until(lambda: told() == ["fake"])
        assert running.model.freed == [("zh", 0)]
        assert (await running.ask(model="zh")).status_code == 404
        assert (await unload(running, "zh")).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../secret", 403),
        ("link", 403),
        ("/etc", 403),
        (".", 403),
        ("owner/name", 400),
        ("bad", 400),
        ("", 400),
        ("zh\0", 400),
        ("x" * 5_000, 400),
        ("circle", 400),
    ],
)
async def test_an_adapter_lies_below_the_folder_that_was_named(root, path, status):
    async with running_worker(adapter_root=root) as running:
        assert (await load(running, "zh", path)).status_code == status
        assert await names(running) == ["fake"]


async def test_none_comes_or_goes_where_that_was_not_allowed(root):
    model = FakeModel()
    async with running_worker(model) as running:
        for reply in (await load(running, "zh", root / "zh"), await unload(running, "fake")):
            assert reply.status_code == 403
            assert "--allow-runtime-lora" in reply.json()["error"]["message"]
