"""The table of `paragone status`."""

from __future__ import annotations

from controller.fleet.table import render_workers
from controller.protocol.fleet import (
    LoadProgress,
    ModelCard,
    Quantisation,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
    WorkerView,
)


def view(
    name: str, state: WorkerState = WorkerState.READY, *, suspect: bool = False, **more: object
) -> WorkerView:
    fields = {"models": [ModelCard(name=name, dtype="float32")], **more}
    status = WorkerStatus(state=state, **fields)
    return WorkerView(
        worker_id=name,
        address=f"http://{name}:1",
        version="0",
        status=status,
        heartbeat_age_seconds=0.42,
        lease_seconds=3,
        in_flight=0,
        suspect=suspect,
    )


def test_columns_are_aligned_and_rows_sorted_by_model():
    load = WorkerLoad(running=1, waiting=3, capacity=4)
    assert render_workers([view("zebra"), view("a", load=load)]).splitlines() == [
        "MODEL  STATE  WEIGHTS  BASE  RUNNING  WAITING  BEAT       ADDRESS",
        "a      ready  float32  -     1/4      3        0.4 s ago  http://a:1",
        "zebra  ready  float32  -     0/1      0        0.4 s ago  http://zebra:1",
    ]


def test_a_worker_with_several_names_has_a_row_for_each():
    cards = [
        ModelCard(name="a", adapter="lora-a", base="b", quantisation=Quantisation.NF4),
        ModelCard(name="b"),
    ]
    text = render_workers([view("w", models=cards)])
    assert text.splitlines()[1].split()[:6] == ["a", "ready", "4bit", "+", "LoRA", "b"]
    assert text.splitlines()[2].split()[:3] == ["b", "ready", "full"]


def test_loading_shows_how_far_and_failure_shows_why():
    loading = view("a", WorkerState.LOADING, progress=LoadProgress(phase="tower", fraction=0.4))
    failed = view("b", WorkerState.FAILED, detail="no weights")
    text = render_workers([loading, failed, view("c", suspect=True)])
    assert "loading 40%" in text
    assert "failed: no weights" in text
    assert "ready (suspect)" in text


def test_an_empty_list_is_said_in_words():
    assert render_workers([]) == "no worker is registered"
