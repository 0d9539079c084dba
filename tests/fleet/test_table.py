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
        "MODEL  STATE  WEIGHTS  BASE  RUNNING  WAITING  BEAT       VERSION  ADDRESS",
        "a      ready  float32  -     1/4      3        0.4 s ago  0        http://a:1",
        "zebra  ready  float32  -     0/1      0        0.4 s ago  0        http://zebra:1",
    ]


def test_a_worker_with_several_names_has_a_row_for_each():
    cards = [
        ModelCard(name="a", adapter="lora-a", base="b", quantisation=Quantisation.NF4),
        ModelCard(name="b"),
    ]
    text = render_workers([view("w", models=cards)])
    assert text.splitlines()[1].split()[:6] == ["a", "ready", "4bit", "+", "LoRA", "b"]
    assert text.splitlines()[2].split()[:3] == ["b", "ready", "full"]


def test_what_some_workers_say_has_columns_in_which_others_have_nothing():
    load = WorkerLoad(kv_use=0.25, cache_hit_rate=0.5, memory_bytes=3 * 2**29)
    header, *rows = render_workers([view("a", load=load), view("b")]).splitlines()
    assert header.split()[5:10] == ["WAITING", "KV", "CACHE", "MEMORY", "BEAT"]
    assert "  0        25%  50%    1.5 GiB  0.4 s ago  " in rows[0]
    assert "  0        -    -      -        0.4 s ago  " in rows[1]
    on_gpu = view("c", load=WorkerLoad(device_memory_bytes=14 * 2**30))
    assert "  GPU       BEAT" in render_workers([on_gpu])


def test_loading_shows_how_far_and_failure_shows_why():
    loading = view("a", WorkerState.LOADING, progress=LoadProgress(phase="tower", fraction=0.4))
    failed = view("b", WorkerState.FAILED, detail="no weights")
    text = render_workers([loading, failed, view("c", suspect=True)])
    assert "loading 40%: tower" in text
    assert "failed: no weights" in text
    assert "ready (suspect)" in text


def test_an_empty_list_is_said_in_words():
    assert render_workers([]) == "no worker is registered"
