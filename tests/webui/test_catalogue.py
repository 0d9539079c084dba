"""The fleet as the page orders it."""

from __future__ import annotations

from controller.protocol.fleet import (
    FleetView,
    ModelCard,
    Quantisation,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
    WorkerView,
)
from webui.catalogue import Catalogue, catalogue_of, default_columns


def _worker(
    *cards: ModelCard,
    state: WorkerState = WorkerState.READY,
    running: int = 0,
    heartbeat_age_seconds: float = 0.5,
) -> WorkerView:
    return WorkerView(
        worker_id="w",
        address="http://127.0.0.1:1",
        version="0",
        status=WorkerStatus(state=state, models=list(cards), load=WorkerLoad(running=running)),
        heartbeat_age_seconds=heartbeat_age_seconds,
        lease_seconds=3,
        in_flight=0,
        suspect=False,
    )


_FULL = ModelCard(name="x-full")
_INT8 = ModelCard(name="x-8bit", quantisation=Quantisation.INT8)
_NF4 = ModelCard(name="x-4bit", quantisation=Quantisation.NF4)
_LORA = ModelCard(name="a-lora", adapter="a", base="x")


def _names(catalogue: Catalogue) -> list[str]:
    return [model.name for model in catalogue.models]


def test_models_go_from_full_to_quantised_to_adapters_however_they_registered() -> None:
    view = FleetView(workers=[_worker(_LORA), _worker(_NF4), _worker(_FULL), _worker(_INT8)])
    assert _names(catalogue_of(view)) == ["x-full", "x-8bit", "x-4bit", "a-lora"]


def test_workers_of_one_model_are_one_entry_and_the_readiest_speaks_for_it() -> None:
    loading = _worker(_FULL, state=WorkerState.LOADING)
    view = FleetView(workers=[loading, _worker(_FULL, running=2), _worker(_FULL, running=1)])
    [model] = catalogue_of(view).models
    assert (model.state, model.num_ready, model.running) == (WorkerState.READY, 2, 3)


def test_a_worker_with_two_models_has_two_entries() -> None:
    view = FleetView(workers=[_worker(_FULL, _LORA)])
    assert _names(catalogue_of(view)) == ["x-full", "a-lora"]


def test_a_worker_whose_lease_has_run_out_is_not_there() -> None:
    view = FleetView(workers=[_worker(_FULL, heartbeat_age_seconds=3.5)])
    assert catalogue_of(view).models == ()


def test_columns_follow_the_fleet_while_it_grows_and_keep_who_has_gone() -> None:
    first = catalogue_of(FleetView(workers=[_worker(_NF4)]))
    both = catalogue_of(FleetView(workers=[_worker(_NF4), _worker(_FULL)]))
    columns = default_columns(first, [None, None], limit=4)
    assert columns == ["x-4bit"]
    columns = default_columns(both, columns, limit=4)
    assert columns == ["x-full", "x-4bit"]
    assert default_columns(first, columns, limit=4) == columns  # x-full died; it keeps its place
    assert default_columns(Catalogue(), columns, limit=4) == columns


def test_a_full_row_of_columns_does_not_change_by_itself() -> None:
    crowd = [ModelCard(name=f"m{number}") for number in range(6)]
    catalogue = catalogue_of(FleetView(workers=[_worker(card) for card in crowd]))
    columns = default_columns(catalogue, [], limit=4)
    assert columns == ["m0", "m1", "m2", "m3"]
    without = catalogue_of(FleetView(workers=[_worker(card) for card in crowd[1:]]))
    assert default_columns(without, columns, limit=4) == columns
