"""A decode step waits for the device when its tokens are read, and for nothing before."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engine.test_slot_model import ASKED, LLAVA, loaded
from worker.engine import draw
from worker.engine.protocol import SamplingParams
from worker.engine.sampling_batch import _Rows
from worker.engine.slot_model import SlotModel

SCHEMA = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
ASKING = {
    "greedy": SamplingParams(temperature=0.0),
    "drawn": SamplingParams(temperature=1.0, seed=1),
    "cut": SamplingParams(temperature=1.0, top_p=0.9, top_k=20, min_p=0.01, seed=1),
    "penalties": SamplingParams(
        temperature=1.0, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.5
    ),
    "bias": SamplingParams(temperature=0.0, logit_bias=((5, 3.0), (7, -3.0))),
    "long": SamplingParams(temperature=0.0, min_tokens=10),
    "probable": SamplingParams(temperature=0.0, logprobs=3),
    "held": SamplingParams(temperature=1.0, json_schema=SCHEMA, seed=1),
}
# On a CUDA device these need a number, or the size of what comes out, before the CPU goes on.
WAITING = {"_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nonzero"}


class Watching(TorchDispatchMode):
    """Finds the operations that would wait for the device."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen += 1
        is_masked = name in {"index", "index_put", "index_put_"} and any(
            each.dtype in {torch.bool, torch.uint8}
            for each in tree_leaves(args[1])
            if isinstance(each, torch.Tensor)
        )
        # A number that is put somewhere is a tensor on the CPU, which is brought there first.
        is_number = name.startswith("index_put") and args[2].dim() == 0
        if name in WAITING or is_masked or is_number:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_the_watcher_sees_what_waits():
    x = torch.zeros(4)
    for wait in (
        lambda: x[x > 0],
        lambda: x.sum().item(),
        x.nonzero,
        lambda: bool(x.any()),
        lambda: x.__setitem__(torch.tensor([1]), 3.0),
    ):
        with torch.inference_mode(), Watching() as watching:
            wait()
        assert watching.found


@pytest.mark.parametrize("name", ASKING)
def test_a_step_waits_for_nothing_before_its_tokens_are_read(name, monkeypatch):
    monkeypatch.setattr(draw, "CANDIDATES", 10**6)  # as on a device, where all are ranked
    model = SlotModel(loaded(*LLAVA))
    rows = []
    for question in ("wide", "text"):
        asked = ASKED[question]
        model.serving("tiny").samplers.check(ASKING[name])
        row = model.open(model.prepare(asked), ASKING[name])
        while model.prefill(row, 4_096) is None:
            pass
        rows.append(row)
    read = []
    monkeypatch.setattr(_Rows, "_read", counted(_Rows._read, read))
    model.step(rows)
    with Watching() as watching:
        model.step(rows)
    assert watching.seen > 100
    assert watching.found == []
    assert len(read) == (0 if name == "greedy" else 2)
    for row in rows:
        model.close(row)


def counted(method, calls):
    def counting(*given):
        calls.append(1)
        return method(*given)

    return counting


def test_a_prompt_is_put_together_without_asking_the_device_where_its_images_are():
    model = SlotModel(loaded(*LLAVA), image_cache_bytes=0)
    prompt = model.prepare(ASKED["two"])
    with torch.inference_mode(), Watching() as watching:
        row = model.open(prompt, ASKING["greedy"])
    assert watching.seen > 20
    assert watching.found == []
    model.close(row)
