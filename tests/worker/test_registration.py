"""A worker keeps its lease with each controller, whatever controllers do."""

import asyncio
import threading

import httpx
import pytest

from controller.chassis.serve import listen
from controller.protocol.errors import DeviceLostError
from controller.protocol.fleet import LoadProgress, ModelCard, WorkerState, WorkerStatus
from tests.engine.fake_model import FakeModel
from tests.waiting import until
from tests.worker.servers import FakeController, running_worker, serving
from worker.registration import PATIENCE_SECONDS, Membership, Registration, pause_seconds

pytestmark = pytest.mark.anyio


async def test_a_worker_registers_while_it_loads_and_says_at_once_when_it_is_ready():
    controller, may_load = FakeController(), threading.Event()
    progress = LoadProgress(phase="language model", fraction=0.4, bytes_done=4, bytes_total=10)

    def before_load(on_progress):
        on_progress(progress)
        may_load.wait(60)

    async with (
        serving(controller.app) as address,
        running_worker(
            controllers=(address,),
            before_load=before_load,
            heartbeat_seconds=60,
            wait_until_ready=False,
        ) as running,
    ):
        await until(
            lambda: controller.calls and controller.calls[-1][1].status.progress == progress
        )
        call, first = controller.calls[0]
        assert (call, first.address) == ("register", running.url)
        assert first.status.models[0].name == "fake"
        assert controller.states()[-1] == "loading"
        may_load.set()
        # The next beat is a minute away.
        await until(lambda: controller.states()[-1] == "ready")
        call, last = controller.calls[-1]
        assert call == "heartbeat"
        assert last.status.progress is None
        assert last.status.models[0].context_length == 1000


async def test_each_beat_carries_the_whole_status():
    controller = FakeController()
    model = FakeModel(gate=threading.Event())
    async with (
        serving(controller.app) as address,
        running_worker(model, controllers=(address,)) as running,
    ):
        asking = [asyncio.create_task(running.ask()) for _ in range(3)]
        await until(lambda: controller.calls and controller.calls[-1][1].status.load.waiting == 2)
        status = controller.calls[-1][1].status
        assert status.load.running == 1
        assert status.load.capacity == 1
        assert status.load.memory_bytes > 1_000_000
        assert status.models[0].name == "fake"
        model.gate.set()
        await asyncio.gather(*asking)


async def test_requests_are_answered_without_any_controller():
    with_nobody_there = "http://127.0.0.1:9"
    async with running_worker(controllers=(with_nobody_there,)) as running:
        assert (await running.ask()).status_code == 200


async def test_a_controller_that_hangs_delays_neither_requests_nor_other_controllers():
    other = FakeController()

    async def never_answer(reader, writer):
        await reader.read()
        writer.close()

    hanging = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    stuck = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
    async with (
        hanging,
        serving(other.app) as address,
        running_worker(controllers=(stuck, address)) as running,
    ):
        async with asyncio.timeout(0.9 * PATIENCE_SECONDS):
            assert (await running.ask()).status_code == 200
            beats = len(other.calls)
            await until(lambda: len(other.calls) > beats + 3)


async def test_a_restarted_controller_knows_the_worker_by_its_next_heartbeat():
    controller = FakeController()
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    async with running_worker(controllers=(f"http://127.0.0.1:{port}",), heartbeat_seconds=0.2):
        async with serving(controller.app, sock):
            await until(lambda: controller.states()[-1:] == ["ready"])
        await asyncio.sleep(1)  # it is missed for some beats
        restarted = FakeController(known=False)
        async with serving(restarted.app, listen("127.0.0.1", port)):
            await until(lambda: restarted.calls)
            assert restarted.states()[0] == "ready"


def test_retries_begin_quickly_and_never_come_later_than_a_beat():
    pauses = [pause_seconds(1.0, failures) for failures in range(1, 100)]
    assert pauses[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    assert max(pauses) == pause_seconds(1.0, 0) == 1.0
    assert pause_seconds(0.05, 1) == 0.05


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 404}, "answered 404"),
        ({"status": 500}, "answered 500"),
        ({"body": "<html>hello</html>"}, "is it a controller?"),
        ({"body": "null"}, "is it a controller?"),
    ],
)
async def test_a_controller_that_talks_nonsense_is_named_once_and_asked_again(
    answer, reason, caplog
):
    controller = FakeController(**answer)
    async with serving(controller.app) as address, running_worker(controllers=(address,)):
        await until(lambda: len(controller.calls) > 5)
        controller.status, controller.body = 200, None
        await until(lambda: controller.calls[-1][0] == "heartbeat")
    lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len([line for line in lines if reason in line and address in line]) == 1


async def test_a_heartbeat_loop_survives_any_exception():
    controller, failures = FakeController(), iter([RuntimeError("a bug"), KeyError("another")])

    def status():
        for failure in failures:
            raise failure
        return WorkerStatus(state=WorkerState.READY, models=[ModelCard(name="fake")])

    async with serving(controller.app) as address, httpx.AsyncClient() as http:
        registration = Registration(
            [Membership(address, "http://127.0.0.1:1")],
            worker_id="w",
            version="0",
            heartbeat_seconds=0.02,
            status=status,
            http=http,
        )
        task = asyncio.create_task(registration.run())
        await until(lambda: len(controller.calls) > 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_worker_that_stops_asks_to_be_left_out_first():
    controller = FakeController()
    async with serving(controller.app) as address:
        async with running_worker(controllers=(address,)):
            await until(lambda: controller.states()[-1:] == ["ready"])
        assert controller.drained == ["worker-under-test"]
        assert "failed" not in controller.states()


async def test_a_worker_whose_model_does_not_load_says_why_and_ends(caplog):
    controller = FakeController()

    def before_load(on_progress):
        raise OSError("no such folder")

    async with (
        serving(controller.app) as address,
        running_worker(
            controllers=(address,), before_load=before_load, wait_until_ready=False
        ) as running,
    ):
        async with asyncio.timeout(60):
            await running.failed.wait()
        # Known to the controller before the process may end.
        assert controller.states()[-1] == "failed"
        assert controller.calls[-1][1].status.detail == "OSError: no such folder"
        reply = await running.ask()
        assert reply.status_code == 503
        assert "no such folder" in reply.json()["error"]["message"]
    assert "fake cannot be loaded" in caplog.text


async def test_a_worker_that_lost_its_device_says_so_and_ends():
    controller = FakeController()
    model = FakeModel(error=DeviceLostError("unspecified launch failure"))
    async with (
        serving(controller.app) as address,
        running_worker(model, controllers=(address,)) as running,
    ):
        reply = await running.ask()
        assert reply.json()["error"]["code"] == "device_lost"
        async with asyncio.timeout(60):
            await running.failed.wait()
        assert controller.states()[-1] == "failed"
        assert (await running.client.get("/ready")).status_code == 503


async def test_the_fleets_token_goes_with_each_call():
    controller = FakeController(token="secret")
    async with serving(controller.app) as address:
        async with running_worker(controllers=(address,), fleet_token="secret"):
            await until(lambda: len(controller.calls) > 2)
        assert controller.drained


async def test_a_card_that_changes_while_the_worker_runs_is_in_its_models_and_the_next_beat(
    monkeypatch,
):
    controller = FakeController()
    async with (
        serving(controller.app) as address,
        running_worker(controllers=(address,)) as running,
    ):
        (card,) = running.model.cards
        changed = card.model_copy(update={"cuda_graphs": "off: the device said so"})
        monkeypatch.setattr(type(running.model), "cards", (changed,))
        listed = (await running.client.get("/v1/models")).json()["data"][0]
        assert listed["metadata"]["card"]["cuda_graphs"] == "off: the device said so"
        await until(lambda: controller.calls[-1][1].status.models == [changed])
