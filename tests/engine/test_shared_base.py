"""Checkpoints that share a base answer as each would alone, and share nothing that is their own."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from controller.protocol.errors import BadRequestError, ModelNotFoundError
from controller.protocol.fleet import Quantisation
from tests.checkpoint import tiny_models
from tests.engine.tensors import tensor_bytes
from tests.engine.test_transformers_model import GREEDY, ORACLE, first_tokens
from tests.engine.test_transformers_model import request as asked
from worker.checkpoint import errors
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.shared import LoraSpec, load_shared
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.survey import survey
from worker.engine.slot_model import SlotModel
from worker.engine.transformers_model import TransformersModel

BASE = LoadSpec(str(ORACLE / "vicuna-tiny"), model_name="base", dtype="float32", device="cpu")


def quiet(_progress):
    pass


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """The oracle's LLaVA adapter, another with other weights and rank, and one for text."""
    other = tmp_path_factory.mktemp("loras") / "other"
    shutil.copytree(ORACLE / "llava-v1.5-tiny-lora", other)
    state = torch.load(other / "adapter_model.bin", weights_only=True)
    torch.manual_seed(1)
    drawn = {name: torch.randn_like(tensor) * 0.2 for name, tensor in state.items()}
    torch.save(drawn, other / "adapter_model.bin")
    projector = torch.load(other / "non_lora_trainables.bin", weights_only=True)
    torch.save(
        {k: torch.randn_like(v) * 0.2 for k, v in projector.items()},
        other / "non_lora_trainables.bin",
    )
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 12}))
    return [
        LoraSpec("one", str(ORACLE / "llava-v1.5-tiny-lora")),
        LoraSpec("two", str(other)),
        LoraSpec("text", str(ORACLE / "vicuna-tiny-text-lora")),
    ]


@pytest.fixture(scope="module", params=[Quantisation.NONE, Quantisation.INT8, Quantisation.NF4])
def shared(request, loras):
    torch.set_num_threads(1)
    return load_shared(replace(BASE, quantisation=request.param), loras, quiet)


ASKED = {
    "one": asked("What is in this image?", "wide"),
    "two": asked("What is in this image?", "wide"),
    "text": asked("Tell me of the sea."),
    "base": asked("Tell me of the sea."),
}


def of(name, question=None):
    return replace(question or ASKED[name], model=name)


def alone(shared, name):
    """What the checkpoint says when it is loaded by itself."""
    base = shared._base
    if name == "base":
        spec = base
    else:
        spec = next(shared.spec(lora) for lora in shared.loras if lora.name == name)
    model = TransformersModel(load_checkpoint(spec, quiet))
    return first_tokens(model, of(name), 12, GREEDY)


def test_rows_of_different_adapters_in_one_batch_say_what_each_says_alone(shared, loras):
    shared.loras = loras
    model = SlotModel(*shared.checkpoints)
    assert [card.name for card in model.cards] == ["base", "one", "two", "text"]
    expected = {name: alone(shared, name) for name in ASKED}
    assert expected["one"] != expected["two"]
    assert expected["text"] != expected["base"]
    is_exact = shared._base.quantisation is not Quantisation.INT8  # its rows share their outliers
    for order in (["one", "two", "text", "base"], ["two", "base", "one", "one"]):
        rows = [model.open(model.prepare(of(name)), GREEDY) for name in order]
        said = [[model.prefill(row, 4_096)] for row in rows]
        for _ in range(11 if is_exact else 0):
            for tokens, token in zip(said, model.step(rows), strict=True):
                tokens.append(token)
        for row in rows:
            model.close(row)
        for name, tokens in zip(order, said, strict=True):
            assert tokens == expected[name][: len(tokens)]


def test_one_after_another_they_say_the_same(shared, loras):
    shared.loras = loras
    model = TransformersModel(*shared.checkpoints)
    for name in ("two", "base", "one", "text", "two"):
        assert first_tokens(model, of(name), 12, GREEDY) == alone(shared, name)


def test_none_gets_what_another_has_read_or_seen(loras):
    shared = load_shared(BASE, loras, quiet)
    model = SlotModel(*shared.checkpoints)
    question = ASKED["one"]
    for name in ("one", "two", "one"):
        row = model.open(model.prepare(of(name, question)), GREEDY)
        known = name == "one" and model.cache_stats().prefix_hits > 0
        assert (row.reuse.cached_tokens > 0) == known
        assert row.reuse.encoded_images == (0 if known else 1)
        model.prefill(row, 4_096)
        model.close(row)


def tensors_of(folder, name):
    return torch.load(folder / name, weights_only=True)


def test_four_checkpoints_take_their_base_once_and_what_is_their_own(tmp_path):
    specs, own = [], 0
    for number in range(4):
        folder = tmp_path / f"{number}"
        shutil.copytree(ORACLE / "llava-v1.5-tiny-lora", folder)
        torch.manual_seed(number)
        for name in ("adapter_model.bin", "non_lora_trainables.bin"):
            drawn = {k: torch.randn_like(v) * 0.2 for k, v in tensors_of(folder, name).items()}
            torch.save(drawn, folder / name)
            own += sum(4 * tensor.numel() for tensor in drawn.values())  # held in float32
        specs.append(LoraSpec(f"lora {number}", str(folder)))
    base = load_checkpoint(
        replace(BASE, model_path=specs[0].path, model_base=BASE.model_path), quiet
    )
    shared_bytes = sum(
        parameter.nbytes
        for name, parameter in base.model.named_parameters()
        if "multi_modal_projector" not in name
    )
    before = tensor_bytes()
    shared = load_shared(BASE, specs, quiet)
    held = tensor_bytes() - before
    assert len(shared.checkpoints) == 5  # the base too
    assert all(each.model is shared.checkpoints[0].model for each in shared.checkpoints)
    assert len({each.projector.number for each in shared.checkpoints[1:]}) == 4
    assert shared_bytes + own <= held <= 1.02 * (shared_bytes + own)


def test_an_adapter_comes_and_goes_and_leaves_no_bytes(loras):
    shared = load_shared(BASE, loras[:1], quiet)
    model = SlotModel(*shared.checkpoints, shared=shared)
    adapters = shared.checkpoints[0].adapters
    before = adapters.num_bytes
    expected = first_tokens(TransformersModel(*shared.checkpoints), of("one"), 8, GREEDY)
    for _ in range(2):
        card = model.read_adapter("two", loras[1].path)()
        assert (card.name, card.adapter) == ("two", "other")
        assert [c.name for c in model.cards] == ["base", "one", "two"]
        row = model.open(model.prepare(of("two")), GREEDY)
        assert row.reuse.cached_tokens == 0
        model.prefill(row, 4_096)
        model.close(row)
        kept = model.cache_stats().kv_used_tokens
        model.dismiss("two")()
        assert adapters.num_bytes == before
        assert model.cache_stats().kv_used_tokens < kept
        with pytest.raises(ModelNotFoundError):
            model.prepare(of("two"))
    assert first_tokens(TransformersModel(*shared.checkpoints), of("one"), 8, GREEDY) == expected
    with pytest.raises(BadRequestError, match="is no adapter"):
        model.dismiss("base")


def in_half(folder):
    """A copy of a checkpoint whose config says that it is in half precision."""
    config = json.loads((folder / "config.json").read_text())
    parts = {
        key: {**value, "dtype": "float16"}
        for key, value in config.items()
        if key.endswith("_config") and isinstance(value, dict)
    }
    half = {**config, **parts, "torch_dtype": "float16", "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(half))
    return folder


@pytest.fixture
def dtypes_set(monkeypatch):
    """What torch's default dtype, which is that of all threads, is set to."""
    seen, set_default = set(), torch.set_default_dtype

    def record(dtype):
        seen.add(dtype)
        set_default(dtype)

    monkeypatch.setattr(torch, "set_default_dtype", record)
    return seen


@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_checks_of_a_checkpoint_leave_the_numbers_of_other_threads_alone(
    family, tmp_path, dtypes_set
):
    """Such as those of an adapter that is read while the model's thread makes steps."""
    tiny_models.save(family, tmp_path)
    dtypes_set.clear()
    survey(LoadSpec(str(in_half(tmp_path)), device="cpu", dtype="float32"))
    assert dtypes_set <= {torch.float32}


def test_what_does_not_share_the_base_is_told_why(loras, tmp_path):
    shared = load_shared(BASE, loras[:1], quiet)
    with pytest.raises(errors.BaseModelError, match="no adapter over"):
        shared.read(LoraSpec("x", str(ORACLE / "vicuna-tiny")))
    blind = load_shared(BASE, loras[2:], quiet)
    with pytest.raises(errors.AdapterError, match="vision tower"):
        blind.read(loras[0])
    other = tmp_path / "dora"
    shutil.copytree(ORACLE / "vicuna-tiny-text-lora", other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(errors.AdapterError, match="DoRA"):
        shared.read(LoraSpec("x", str(other)))
