"""Weights in oneDNN's layout: the same answers, and nothing that was to stay as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.checkpoint.tiny_models import save
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.lora import AdapterSet, LoraPair
from worker.checkpoint.spec import LoadSpec
from worker.engine import processor
from worker.engine.packed_linear import OneDnnLinear, can_pack, pack_linear_layers

needs_onednn = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this machine's torch has no oneDNN for x86"
)


class Tiny(nn.Module):
    """Layers of every kind that there is a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 24)
        self.inner = nn.Linear(24, 56)
        self.bare = nn.Linear(56, 24, bias=False)
        self.narrow = nn.Linear(24, 24).to(torch.float16)
        self.multi_modal_projector = nn.Linear(24, 24)
        self.tied = nn.Linear(24, 40, bias=False)
        self.tied.weight = self.embed.weight


def is_packed(layer):
    return type(layer) is OneDnnLinear and layer.weight.is_mkldnn


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 24), (16, 24), (3, 300, 24)])
def test_a_packed_layer_computes_what_it_computed(dtype, shape):
    if not can_pack(dtype):
        pytest.skip(f"this CPU has no {dtype} products")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 56), nn.Linear(56, 24, bias=False)).to(dtype)
    given = torch.randn(shape, dtype=dtype)
    with torch.inference_mode():
        expected = model(given)
        assert pack_linear_layers(model) == sum(
            layer.in_features * layer.out_features * dtype.itemsize for layer in model
        )
        assert all(is_packed(layer) for layer in model)
        torch.testing.assert_close(model(given), expected)


@needs_onednn
def test_only_layers_with_a_plain_weight_of_their_own_are_packed():
    model = Tiny()
    given = torch.randn(3, 24)
    expected = [model.tied(given), model.multi_modal_projector(given)]
    assert pack_linear_layers(model) == 2 * 24 * 56 * 4
    packed = {name for name, layer in model.named_modules() if is_packed(layer)}
    assert packed == {"inner", "bare"}
    assert model.inner.weight.device.type == "cpu"
    assert model.inner.weight.dtype is torch.float32
    # The others are multiplied by oneDNN too, but for what it does not know.
    assert model.tied.weight is model.embed.weight
    torch.testing.assert_close([model.tied(given), model.multi_modal_projector(given)], expected)
    assert type(model.narrow) is nn.Linear


@needs_onednn
def test_adapters_lie_beside_packed_layers_as_beside_others():
    torch.manual_seed(0)
    plain, packed = Tiny(), Tiny()
    packed.load_state_dict(plain.state_dict())
    pack_linear_layers(packed)
    given = torch.randn(2, 3, 24)
    pair = LoraPair(torch.randn(4, 24), torch.randn(56, 4), 2.0)
    found = []
    for model in (plain, packed):
        adapters = AdapterSet(model, torch.float32)
        number = adapters.add({"inner": pair})
        adapters.use_rows([number, None])
        found.append(model.inner(given))
    torch.testing.assert_close(*found)


def test_other_machines_keep_their_weights(monkeypatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    model = Tiny()
    assert pack_linear_layers(model) == 0
    assert type(model.inner) is nn.Linear


@needs_onednn
def test_a_packed_model_gives_the_logits_that_it_gave(tmp_path):
    save("llava", tmp_path)
    spec = LoadSpec(str(tmp_path), device="cpu", dtype="float32")
    model = load_checkpoint(spec, lambda _progress: None).model
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        assert pack_linear_layers(model) > 0
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)
