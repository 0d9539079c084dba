"""Delta weights: told by their numbers, applied while they load, made and applied on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from worker.checkpoint import delta, errors
from worker.checkpoint.facts import describe
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.tools import apply_delta, make_delta

PROMPT = "USER: <image>\nWhat is this? ASSISTANT:"
GROWN = 3  # vocabulary rows that the base lacks, as v0's <im_patch>, <im_start>, <im_end>
PROJECTOR = "model.mm_projector."


def load(path, base=None, **options):
    spec = LoadSpec(str(path), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


@torch.inference_mode()
def logits(loaded, image):
    prepared = loaded.prompting.prepare_text(PROMPT, [image])
    return loaded.model(**loaded.inputs(prepared)).logits[0, -1]


@pytest.fixture(scope="module")
def wide(oracle):
    return Image.open(oracle / "wide.png").convert("RGB")


@pytest.fixture
def base(copy) -> Path:
    return copy("vicuna-tiny")


@pytest.fixture
def target(copy, edit, base) -> Path:
    """A v0 model trained from the base: a little off it, with a linear projector and new tokens."""
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny", "llava-v0")
    edit(folder / "config.json", mm_projector_type=None, vocab_size=3000 + GROWN)
    torch.manual_seed(3)
    state = load_file(base / "model.safetensors")
    for name, tensor in state.items():
        if tensor.dtype.is_floating_point:
            state[name] = (tensor.float() + 1e-3 * torch.randn(tensor.shape)).half()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], 0.1 * torch.randn(GROWN, 128).half()])
    state[f"{PROJECTOR}weight"] = 0.1 * torch.randn(128, 64).half()
    state[f"{PROJECTOR}bias"] = 0.1 * torch.randn(128).half()
    (folder / "pytorch_model.bin").unlink()
    save_file(state, folder / "model.safetensors")
    return folder


def published(base: Path, target: Path, out: Path) -> Path:
    """A delta as LLaVA's make_delta wrote it: float16, pickled, nothing in its config."""
    out.mkdir()
    state, bases = load_file(target / "model.safetensors"), load_file(base / "model.safetensors")
    for name, tensor in bases.items():
        state[name][: tensor.shape[0]] -= tensor
    torch.save(state, out / "pytorch_model.bin")
    for file in target.iterdir():
        if file.suffix != ".safetensors":
            (out / file.name).write_bytes(file.read_bytes())
    return out


def test_a_published_delta_loads_over_its_base_as_the_model_that_it_was_made_of(
    base, target, tmp_path, wide
):
    folder = published(base, target, tmp_path / "delta")
    loaded = load(folder, base)
    assert loaded.card.format == "llava-delta"
    assert loaded.card.base == "vicuna-tiny"
    # What LLaVA's own float16 sum makes of it, to the last bit.
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name, tensor in load_file(base / "model.safetensors").items():
        state[name][: tensor.shape[0]] += tensor
    own = loaded.model.state_dict()
    for name, tensor in state.items():
        if name.startswith("model.layers.") and "inv_freq" not in name:
            mine = own[name.replace("model.", "model.language_model.", 1)]
            assert torch.equal(mine, tensor.float()), name
    for mine, name in (("lm_head", "lm_head"), ("model.language_model.embed_tokens",) * 2):
        theirs = state[f"{name.replace('.language_model', '')}.weight"].float()
        assert torch.equal(own[f"{mine}.weight"], theirs)
    assert torch.equal(
        own["model.multi_modal_projector.0.weight"], state[f"{PROJECTOR}weight"].float()
    )
    torch.testing.assert_close(logits(loaded, wide), logits(load(target), wide), atol=5e-3, rtol=0)


@pytest.mark.parametrize("quantisation", ["8bit", "4bit"])
def test_a_delta_loads_quantised_too(base, target, tmp_path, wide, quantisation):
    folder = published(base, target, tmp_path / "delta")
    full = logits(load(target, quantisation=quantisation), wide)
    found = logits(load(folder, base, quantisation=quantisation), wide)
    assert torch.cosine_similarity(found, full, dim=0) > 0.99


def test_a_delta_without_its_base_asks_for_it(base, target, tmp_path):
    folder = published(base, target, tmp_path / "delta")
    with pytest.raises(errors.BaseModelError, match=r"holds delta weights.*as --model-base"):
        describe(LoadSpec(str(folder)))


def test_what_the_config_says_decides_over_the_numbers(base, target, tmp_path, edit):
    folder = published(base, target, tmp_path / "delta")
    edit(folder / "config.json", mm_is_delta=False)
    assert describe(LoadSpec(str(folder))).card.format == "llava"
    edit(target / "config.json", mm_is_delta=True)
    assert describe(LoadSpec(str(target), model_base=str(base))).card.format == "llava-delta"


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_a_model_with_odd_norms_is_not_taken_for_a_delta(target, scale):
    # Random checkpoints have all sorts of norms; their embeddings still are a model's.
    state = load_file(target / "model.safetensors")
    state["model.norm.weight"] = torch.full((128,), scale)
    save_file(state, target / "model.safetensors")
    assert describe(LoadSpec(str(target))).card.format == "llava"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["safetensors", "zip", "old pickle"])
def test_a_delta_is_told_in_every_dtype_and_file(base, target, tmp_path, dtype, form):
    folder = published(base, target, tmp_path / "delta")
    file = folder / "pytorch_model.bin"
    state = {k: v.to(dtype) for k, v in torch.load(file, weights_only=True).items()}
    if form == "safetensors":
        file.unlink()
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    rename = lambda name: name.replace("model.", "model.language_model.", 1)  # noqa: E731
    opened = CheckpointFolder.open(folder)
    assert delta.says_delta(opened, rename)
    assert delta.is_delta_over(opened, CheckpointFolder.open(base), rename)
    assert not delta.is_delta_over(
        CheckpointFolder.open(target), CheckpointFolder.open(base), rename
    )


def test_a_base_of_another_shape_is_refused_before_loading(base, target, tmp_path, edit):
    folder = published(base, target, tmp_path / "delta")
    edit(base / "config.json", num_hidden_layers=2)
    with pytest.raises(errors.BaseModelError, match="num_hidden_layers 2 instead of 3"):
        load(folder, base)


def test_a_base_that_lacks_a_layer_is_refused_before_loading(base, target, tmp_path):
    folder = published(base, target, tmp_path / "delta")
    file = base / "model.safetensors"
    state = load_file(file)
    save_file({k: v for k, v in state.items() if "layers.2." not in k}, file)
    with pytest.raises(errors.BaseModelError, match=r"not the base of this delta: it lacks \d+ of"):
        load(folder, base)


def test_a_base_with_more_vocabulary_is_refused(base, target, tmp_path, edit):
    folder = published(base, target, tmp_path / "delta")
    file = base / "model.safetensors"
    state = load_file(file)
    state["lm_head.weight"] = torch.zeros(3000 + GROWN + 1, 128)
    save_file(state, file)
    with pytest.raises(errors.BaseModelError, match=r"lm_head.weight is \[3004, 128\] there"):
        load(folder, base)


def test_a_sum_is_made_piece_by_piece_and_rounded_once():
    torch.manual_seed(0)
    tensor, base = torch.randn(7, 4).half(), torch.randn(6, 4).half()
    expected = tensor.clone()
    expected[:6] += base
    pieces = base.view(-1).split(5)
    transposed = tensor.T.contiguous().T
    assert torch.equal(delta.combine(transposed, pieces, sign=1), expected)
    assert torch.equal(delta.combine(tensor, pieces, sign=1), expected)


# --- on disk


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }


def test_a_delta_that_is_made_and_applied_gives_the_model_back(base, target, tmp_path, wide):
    made, again = tmp_path / "made", tmp_path / "again"
    words = ["--base", str(base), "--max-shard-size", "500KB"]
    assert make_delta.main([*words, "--target", str(target), "--out", str(made)]) == 0
    assert json.loads((made / "config.json").read_text())["mm_is_delta"] is True
    assert len(list(made.glob("model-*.safetensors"))) > 2
    loaded = load(made, base)
    torch.testing.assert_close(logits(loaded, wide), logits(load(target), wide), atol=1e-3, rtol=0)
    assert apply_delta.main([*words, "--delta", str(made), "--out", str(again)]) == 0
    assert json.loads((again / "config.json").read_text()) == json.loads(
        (target / "config.json").read_text()
    )
    theirs = state_of(target)
    mine = state_of(again)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # A difference of near float16 numbers is exact, and so is the way back.
        torch.testing.assert_close(mine[name], tensor, atol=1e-4, rtol=1e-3)
    assert load(again).tokenizer.encode("Hello") == load(target).tokenizer.encode("Hello")


def test_llavas_own_flags_work(base, target, tmp_path):
    made, again = tmp_path / "made", tmp_path / "again"
    words = ["--base-model-path", str(base)]
    assert (
        make_delta.main([*words, "--target-model-path", str(target), "--delta-path", str(made)])
        == 0
    )
    # Its documentation has them shortened.
    words = ["--base", str(base)]
    assert apply_delta.main([*words, "--target", str(again), "--delta", str(made)]) == 0
    assert describe(LoadSpec(str(again))).card.format == "llava"


def test_projector_and_new_vocabulary_rows_are_taken_as_they_stand(base, target, tmp_path):
    made = tmp_path / "made"
    make_delta.main(["--base", str(base), "--target", str(target), "--out", str(made)])
    mine, theirs = state_of(made), state_of(target)
    assert torch.equal(mine[f"{PROJECTOR}weight"], theirs[f"{PROJECTOR}weight"])
    assert torch.equal(mine["lm_head.weight"][3000:], theirs["lm_head.weight"][3000:])
    assert mine["lm_head.weight"][:3000].abs().max() < 0.01


def test_a_delta_of_a_delta_is_refused(base, target, tmp_path, capsys):
    folder = published(base, target, tmp_path / "delta")
    words = ["--base", str(base), "--target", str(folder), "--out", str(tmp_path / "x")]
    assert make_delta.main(words) == 1
    assert "holds delta weights already" in capsys.readouterr().err


def test_the_wrong_base_writes_nothing(base, target, tmp_path, capsys):
    made = tmp_path / "made"
    os.truncate(base / "model.safetensors", 1000)
    assert make_delta.main(["--base", str(base), "--target", str(target), "--out", str(made)]) == 1
    assert "is damaged or cut short" in capsys.readouterr().err
    assert not made.exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]
