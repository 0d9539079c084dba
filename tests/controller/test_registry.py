"""The registry's rules, on a clock that only moves when told to."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.absence import RETRY_AFTER_SECONDS
from controller.protocol.errors import (
    ConflictError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelUnheardOfError,
    NoLiveWorkerError,
)
from controller.protocol.fleet import (
    LoadProgress,
    ModelCard,
    RegisterRequest,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from controller.registry import MAX_REMEMBERED_MODELS, Registry
from controller.worker_record import LEASE_BEATS


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry(clock=clock, wall_clock=lambda: 1_800_000_000 + clock.now)


def said_by(
    worker_id: str = "w1",
    *models: str,
    address: str | None = None,
    state: WorkerState = WorkerState.READY,
    heartbeat_seconds: float = 1.0,
    load: WorkerLoad | None = None,
    progress: LoadProgress | None = None,
    detail: str | None = None,
) -> RegisterRequest:
    return RegisterRequest(
        worker_id=worker_id,
        address=address or f"http://host/{worker_id}",
        heartbeat_seconds=heartbeat_seconds,
        version="1",
        status=WorkerStatus(
            state=state,
            models=[ModelCard(name=name) for name in models or ("demo",)],
            load=load or WorkerLoad(),
            progress=progress,
            detail=detail,
        ),
    )


def ids(registry: Registry, model: str = "demo") -> list[str]:
    return [record.worker_id for record in registry.rotation(model)]


def names(registry: Registry) -> list[str]:
    return [entry.id for entry in registry.models().data]


def test_a_ready_worker_is_in_the_rotation_once_registered(registry: Registry) -> None:
    reply = registry.register(said_by())
    assert not reply.known
    assert reply.lease_seconds == LEASE_BEATS * 1.0
    assert ids(registry) == ["w1"]


def test_registering_again_changes_nothing(registry: Registry) -> None:
    registry.register(said_by())
    assert registry.register(said_by()).known
    assert ids(registry) == ["w1"]
    assert len(registry.workers()) == 1


def test_a_heartbeat_of_an_unknown_worker_puts_it_on_the_list(registry: Registry) -> None:
    assert not registry.heartbeat(said_by()).known
    assert ids(registry) == ["w1"]
    assert registry.heartbeat(said_by()).known


def test_a_worker_is_gone_once_its_lease_has_run_out(registry: Registry, clock: Clock) -> None:
    registry.register(said_by())
    clock.now += 2.9
    assert ids(registry) == ["w1"]
    clock.now += 0.2
    assert names(registry) == []
    assert registry.view().workers == []
    with pytest.raises(NoLiveWorkerError):
        registry.rotation("demo")


def test_a_lease_follows_the_interval_that_the_worker_declared(
    registry: Registry, clock: Clock
) -> None:
    registry.register(said_by(heartbeat_seconds=15))
    clock.now += 44
    assert ids(registry) == ["w1"]
    clock.now += 2
    assert names(registry) == []


def test_a_heartbeat_renews_the_lease(registry: Registry, clock: Clock) -> None:
    registry.register(said_by())
    for _ in range(10):
        clock.now += 1.0
        assert registry.heartbeat(said_by()).known
    assert ids(registry) == ["w1"]


def test_expiry_forgets_the_worker_and_remembers_the_name(registry: Registry, clock: Clock) -> None:
    registry.register(said_by())
    clock.now += 3
    assert [record.worker_id for record in registry.expire()] == ["w1"]
    assert registry.expire() == []
    assert registry.workers() == []
    with pytest.raises(NoLiveWorkerError, match="gone"):
        registry.rotation("demo")
    with pytest.raises(ModelNotFoundError):
        registry.rotation("never")


def test_a_name_is_unheard_of_while_workers_may_be_coming_back_and_wrong_afterwards(
    clock: Clock,
) -> None:
    registry = Registry(clock=clock, wall_clock=lambda: 0.0, settling_seconds=10)
    registry.register(said_by("w1", "demo", heartbeat_seconds=30))
    clock.now += 3
    with pytest.raises(ModelUnheardOfError, match=r"started 3 s ago.* answer now: demo") as caught:
        registry.rotation("other")
    assert caught.value.retry_after_seconds == RETRY_AFTER_SECONDS
    clock.now += 6.5
    with pytest.raises(ModelUnheardOfError) as caught:
        registry.model("other")
    assert caught.value.retry_after_seconds == 0.5
    clock.now += 0.5
    with pytest.raises(ModelNotFoundError):
        registry.rotation("other")


def test_a_name_that_was_told_of_is_never_unheard_of(clock: Clock) -> None:
    registry = Registry(clock=clock, wall_clock=lambda: 0.0, settling_seconds=60)
    registry.register(said_by("w1", state=WorkerState.LOADING))
    with pytest.raises(ModelLoadingError):
        registry.rotation("demo")
    clock.now += 3
    registry.expire()
    with pytest.raises(NoLiveWorkerError, match="gone"):
        registry.rotation("demo")


def test_a_worker_that_was_out_of_touch_keeps_its_open_requests(
    registry: Registry, clock: Clock
) -> None:
    registry.register(said_by())
    (record,) = registry.rotation("demo")
    with record.carrying(100):
        clock.now += 60  # this process was stopped, say
        assert not registry.heartbeat(said_by()).known
        assert registry.rotation("demo")[0].in_flight == 1


def test_a_drained_worker_gets_nothing_and_its_late_heartbeat_does_not_bring_it_back(
    registry: Registry,
) -> None:
    registry.register(said_by())
    assert registry.drain("w1")
    registry.heartbeat(said_by())
    assert names(registry) == []
    with pytest.raises(NoLiveWorkerError, match="shutting down"):
        registry.rotation("demo")
    assert registry.view().workers[0].status.state is WorkerState.DRAINING


def test_a_drained_worker_that_registers_again_is_back(registry: Registry) -> None:
    registry.register(said_by())
    registry.drain("w1")
    registry.register(said_by())
    assert ids(registry) == ["w1"]


def test_draining_a_stranger_does_nothing(registry: Registry) -> None:
    assert not registry.drain("nobody")


def test_a_restarted_worker_replaces_the_old_one_at_its_address_at_once(
    registry: Registry,
) -> None:
    registry.register(said_by("old", address="http://host:1"))
    registry.register(said_by("new", address="http://host:1/"))
    assert ids(registry) == ["new"]
    assert [view.worker_id for view in registry.view().workers] == ["new"]


def test_a_replaced_worker_that_still_beats_is_told_who_has_its_address(
    registry: Registry, clock: Clock
) -> None:
    registry.register(said_by("one", address="http://host:1"))
    registry.register(said_by("two", address="http://host:1"))
    with pytest.raises(ConflictError, match="worker two"):
        registry.heartbeat(said_by("one", address="http://host:1"))
    assert ids(registry) == ["two"]
    clock.now += 3  # "two" is gone: the address is free again
    registry.heartbeat(said_by("one", address="http://host:1"))
    assert ids(registry) == ["one"]


def test_a_worker_may_move_to_another_address(registry: Registry) -> None:
    registry.register(said_by(address="http://host:1"))
    registry.heartbeat(said_by(address="http://host:2"))
    assert [record.address for record in registry.rotation("demo")] == ["http://host:2"]
    registry.register(said_by("w2", address="http://host:1"))
    assert ids(registry) == ["w1", "w2"]


def test_a_suspect_is_asked_only_when_there_is_nobody_else(registry: Registry) -> None:
    registry.register(said_by("w1"))
    registry.register(said_by("w2"))
    first, second = registry.rotation("demo")
    registry.suspect(first, "refused")
    assert ids(registry) == ["w2"]
    registry.suspect(second, "refused")
    assert ids(registry) == ["w1", "w2"]


def test_a_worker_whose_heartbeats_are_late_is_asked_only_when_nobody_is_punctual(
    registry: Registry, clock: Clock
) -> None:
    registry.register(said_by("late"))
    clock.now += 1.5
    registry.register(said_by("punctual"))
    assert ids(registry) == ["late", "punctual"]
    clock.now += 0.6
    assert ids(registry) == ["punctual"]
    assert registry.model("demo").metadata.worker_count == 2
    registry.drain("punctual")
    assert ids(registry) == ["late"]


def test_a_worker_with_open_requests_is_not_forgotten_before_they_end(
    registry: Registry, clock: Clock
) -> None:
    registry.register(said_by())
    (record,) = registry.rotation("demo")
    with record.carrying(100):
        clock.now += 60
        assert registry.expire() == []
        assert names(registry) == []
    assert registry.expire() == [record]


def test_a_model_of_suspects_alone_is_not_listed(registry: Registry) -> None:
    registry.register(said_by())
    registry.suspect(registry.rotation("demo")[0], "refused")
    assert names(registry) == []
    assert not registry.has_live_worker()
    with pytest.raises(NoLiveWorkerError, match="cannot be reached"):
        registry.model("demo")


def test_being_heard_of_ends_a_suspicion(registry: Registry) -> None:
    registry.register(said_by())
    registry.suspect(registry.rotation("demo")[0], "refused")
    assert names(registry) == []
    registry.heartbeat(said_by())
    assert names(registry) == ["demo"]


def test_a_loading_worker_is_not_in_the_rotation_and_its_progress_is_told(
    registry: Registry,
) -> None:
    progress = LoadProgress(phase="language model", fraction=0.25)
    registry.register(said_by(state=WorkerState.LOADING, progress=progress))
    assert names(registry) == []
    with pytest.raises(ModelLoadingError, match="language model, 25% done"):
        registry.rotation("demo")
    registry.heartbeat(said_by())
    assert names(registry) == ["demo"]


def test_a_worker_that_failed_to_load_says_why(registry: Registry) -> None:
    registry.register(said_by(state=WorkerState.FAILED, detail="out of memory"))
    with pytest.raises(NoLiveWorkerError, match="out of memory"):
        registry.rotation("demo")


def test_a_worker_serves_every_name_that_it_gives_and_none_that_it_dropped(
    registry: Registry,
) -> None:
    registry.register(said_by("w1", "base", "adapter"))
    assert names(registry) == ["adapter", "base"]
    registry.heartbeat(said_by("w1", "base"))
    assert names(registry) == ["base"]
    with pytest.raises(NoLiveWorkerError):
        registry.rotation("adapter")


def test_an_entry_counts_the_workers_and_dates_from_the_first(
    registry: Registry, clock: Clock
) -> None:
    registry.register(said_by("w1"))
    clock.now += 1
    registry.register(said_by("w2"))
    registry.register(said_by("w3", state=WorkerState.LOADING))
    entry = registry.model("demo")
    assert entry.metadata.worker_count == 2
    assert entry.created == 1_800_001_000


def test_a_stale_report_does_not_hide_the_requests_since(registry: Registry) -> None:
    registry.register(said_by(load=WorkerLoad(running=2, waiting=1)))
    (record,) = registry.rotation("demo")
    assert record.queue_length == 3
    with record.carrying(10), record.carrying(20):
        assert record.queue_length == 5
        # The worker reports the two that came through here and one of somebody else's.
        registry.heartbeat(said_by(load=WorkerLoad(running=3)))
        assert record.queue_length == 3
        assert record.in_flight_tokens == 30
    assert record.queue_length == 1
    assert record.in_flight_tokens == 0


def test_a_workers_best_speed_is_forgotten_slowly(registry: Registry, clock: Clock) -> None:
    registry.register(said_by())
    (record,) = registry.rotation("demo")
    assert record.tokens_per_second is None
    registry.heartbeat(said_by(load=WorkerLoad(tokens_per_second=100.0)))
    clock.now += 1
    registry.heartbeat(said_by(load=WorkerLoad(tokens_per_second=20.0)))
    assert record.tokens_per_second == pytest.approx(100, rel=0.01)
    for _ in range(30 * 60):
        clock.now += 1
        registry.heartbeat(said_by(load=WorkerLoad(tokens_per_second=20.0)))
    assert record.tokens_per_second == pytest.approx(20.0, rel=0.01)


def test_names_are_not_remembered_without_bound(registry: Registry, clock: Clock) -> None:
    for number in range(MAX_REMEMBERED_MODELS + 50):
        registry.register(said_by("w", f"model-{number}"))
    with pytest.raises(ModelNotFoundError):  # the oldest name made room
        registry.rotation("model-0")
    with pytest.raises(NoLiveWorkerError):
        registry.rotation(f"model-{MAX_REMEMBERED_MODELS}")


WORKERS = st.sampled_from(["w1", "w2", "w3"])
ADDRESSES = st.sampled_from(["http://a", "http://b"])
MODELS = st.lists(st.sampled_from(["m1", "m2"]), min_size=1, max_size=3)


class AnyHistory(RuleBasedStateMachine):
    """Whatever workers say in whatever order, the indices agree and no dead worker is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.registry = Registry(clock=self.clock, wall_clock=lambda: 0.0)

    @rule(worker=WORKERS, address=ADDRESSES, models=MODELS, state=st.sampled_from(WorkerState))
    def register(self, worker: str, address: str, models: list[str], state: WorkerState) -> None:
        self.registry.register(said_by(worker, *models, address=address, state=state))

    @rule(worker=WORKERS, address=ADDRESSES, models=MODELS)
    def heartbeat(self, worker: str, address: str, models: list[str]) -> None:
        try:
            self.registry.heartbeat(said_by(worker, *models, address=address))
        except ConflictError:
            assert any(r.worker_id != worker for r in self.registry.workers())

    @rule(position=st.integers(0, 2), state=st.none() | st.sampled_from(WorkerState))
    def beat_again(self, position: int, state: WorkerState | None) -> None:
        """What workers do most: say the same again, or that they are in another state now."""
        for record in self.registry.workers()[position : position + 1]:
            models = [card.name for card in record.status.models]
            said = said_by(
                record.worker_id,
                *models,
                address=record.address,
                state=state or record.status.state,
            )
            self.registry.heartbeat(said)

    @rule(worker=WORKERS)
    def drain(self, worker: str) -> None:
        self.registry.drain(worker)

    @rule(position=st.integers(0, 2))
    def suspect(self, position: int) -> None:
        for record in self.registry.workers()[position : position + 1]:
            self.registry.suspect(record, "refused")

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def expire(self) -> None:
        self.registry.expire()

    @invariant()
    def the_kept_model_list_is_what_a_fresh_one_would_be(self) -> None:
        kept = self.registry.models()
        until = self.registry._listed_until
        self.registry._listed = None
        assert self.registry.models() == kept
        self.registry._listed, self.registry._listed_until = kept, until

    @invariant()
    def one_worker_an_address(self) -> None:
        addresses = [record.address for record in self.registry.workers()]
        assert len(addresses) == len(set(addresses))

    @invariant()
    def the_rotation_holds_exactly_the_live_workers_of_a_model(self) -> None:
        listed = names(self.registry)
        for model in ("m1", "m2"):
            live = {
                record.worker_id: record
                for record in self.registry.workers()
                if record.is_live(self.clock.now)
                and model in {card.name for card in record.status.models}
            }
            trusted = {name for name, record in live.items() if record.suspicion is None}
            punctual = {name for name in trusted if live[name].is_punctual(self.clock.now)}
            if live:
                assert set(ids(self.registry, model)) == (punctual or trusted or set(live))
            else:
                with pytest.raises((ModelLoadingError, ModelNotFoundError, NoLiveWorkerError)):
                    self.registry.rotation(model)
            assert (model in listed) == bool(trusted)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
