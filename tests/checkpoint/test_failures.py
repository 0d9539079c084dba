"""Each way in which a checkpoint does not load names its cause and the way out."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from controller.protocol.fleet import Quantisation
from worker.checkpoint import errors
from worker.checkpoint.headers import read_headers
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.tensors import read_tensor


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def load(path, base=None, **options):
    spec = LoadSpec(str(path), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


# --- the path


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(errors.PathError, match=r"nowhere is not there; a checkpoint is a folder"):
        load(tmp_path / "nowhere")


def test_a_file_is_not_taken_for_a_checkpoint(oracle):
    with pytest.raises(errors.PathError, match="a file, not a folder"):
        load(oracle / "wide.png")


def test_a_hub_repository_that_cannot_be_had_is_named():
    with pytest.raises(errors.PathError, match=r"no folder 'nobody/nothing' here, and as a repos"):
        load("nobody/nothing")


def test_a_folder_that_is_no_checkpoint_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        errors.FormatError, match=r"neither config.json nor adapter_config.json. It holds: notes"
    ):
        load(tmp_path)


def test_a_config_without_weights_says_what_each_format_has(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(errors.IncompleteError, match=r"no weights.*llava-projector: mm_projector"):
        load(tmp_path)


def test_a_folder_of_checkpoints_names_the_last_of_them(copy, tmp_path):
    copy("vicuna-tiny", "runs/checkpoint-500")
    copy("vicuna-tiny", "runs/checkpoint-900")
    with pytest.raises(errors.FormatError, match=r"There is one at \S+/runs/checkpoint-900"):
        load(tmp_path / "runs")


def test_another_programs_format_names_the_program(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(errors.FormatError, match=r"GGUF files are llama.cpp's"):
        load(tmp_path)


def test_a_config_whose_values_do_not_fit_each_other_is_named(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", num_attention_heads=5)
    with pytest.raises(errors.FormatError, match=r"config.json does not make a model.*heads \(5\)"):
        load(folder)


def test_a_config_that_no_model_can_be_made_of_is_named(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", hidden_act="gelu_of_my_own")
    with pytest.raises(errors.FormatError, match=r"does not make a LlamaForCausalLM"):
        load(folder)


def test_a_config_that_is_not_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(errors.FormatError, match=r"config.json is not JSON"):
        load(tmp_path)


# --- architectures


def test_an_unknown_architecture_names_the_closest_known(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", model_type="llamma")
    with pytest.raises(errors.ArchitectureError, match=r"'llamma'.*closest known is llama"):
        load(folder)


def test_an_architecture_that_is_like_no_other_is_not_likened_to_any(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", model_type="zyxwv", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(errors.ArchitectureError, match=r"'zyxwv'.*code of its own") as caught:
        load(folder)
    assert "closest" not in str(caught.value)


def test_a_config_without_a_model_type_says_so(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", model_type=None)
    with pytest.raises(errors.ArchitectureError, match=r"config.json names no model_type"):
        load(folder)


def test_a_tower_is_no_model(oracle):
    with pytest.raises(errors.ArchitectureError, match=r"is a vision tower \(clip_vision_model\)"):
        load(oracle / "clip-tiny-patch14")


def test_an_original_llava_over_an_unknown_language_model_is_refused(copy, edit):
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", architectures=["LlavaGemmaForCausalLM"], model_type="llava_gemma")
    with pytest.raises(
        errors.ArchitectureError, match=r"over LlavaGemmaForCausalLM cannot be loaded"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm_projector_type", "resampler"),
        ("image_aspect_ratio", "highres"),
        ("mm_vision_select_feature", "all"),
    ],
)
def test_a_setting_that_is_not_known_is_named(oracle, copy, edit, key, value):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", **{key: value})
    with pytest.raises(errors.ArchitectureError, match=f"{key} '{value}'.*known are"):
        load(folder)


# --- the base


def test_a_projector_without_its_base_asks_for_it(oracle):
    with pytest.raises(errors.BaseModelError, match=r"not a whole model.*as --model-base"):
        load(oracle / "llava-v1.5-tiny-pretrain")


def test_a_base_that_is_not_there_is_named(oracle, tmp_path):
    with pytest.raises(errors.BaseModelError, match=r"\(--model-base\) cannot be opened:.*gone"):
        load(oracle / "llava-v1.5-tiny-lora", tmp_path / "gone")


def test_a_base_that_only_the_adapter_names_is_looked_for_beside_it(copy):
    folder = copy("llava-v1.5-tiny-lora")
    with pytest.raises(errors.BaseModelError, match=r"names the base 'vicuna-tiny'.*--model-base"):
        load(folder)


def test_a_base_of_another_shape_names_the_difference(oracle, copy, edit):
    base = copy("vicuna-tiny")
    edit(base / "config.json", hidden_size=256, num_hidden_layers=4)
    with pytest.raises(
        errors.BaseModelError, match=r"hidden_size 256 instead of 128, num_hidden_layers 4 instead"
    ):
        load(oracle / "llava-v1.5-tiny-lora", base)


def test_a_base_whose_tensors_belie_its_config_is_refused_before_loading(oracle, copy):
    base = copy("vicuna-tiny")
    state = load_file(base / "model.safetensors")
    state["lm_head.weight"] = state["lm_head.weight"][:-8].clone()
    save_file(state, base / "model.safetensors")
    with pytest.raises(errors.BaseModelError, match=r"lm_head.weight, which is 2992 x 128 instead"):
        load(oracle / "llava-v1.5-tiny-lora", base)


@pytest.mark.parametrize("name", ["llava-v1.5-tiny", "vicuna-tiny"])
def test_a_whole_checkpoint_takes_no_base(oracle, name):
    with pytest.raises(errors.BaseModelError, match=r"it takes no --model-base"):
        load(oracle / name, oracle / "vicuna-tiny")


def test_a_base_of_another_kind_is_named_before_the_tower_is_looked_for(oracle, copy, edit):
    base = copy("vicuna-tiny")
    edit(base / "config.json", model_type="mistral")
    lora = copy("llava-v1.5-tiny-lora", "elsewhere/lora")
    with pytest.raises(errors.BaseModelError, match=r"model_type 'mistral' instead of 'llama'"):
        load(lora, base)


def test_a_projector_is_no_base_of_an_adapter(oracle):
    with pytest.raises(errors.BaseModelError, match=r"is itself a projector"):
        load(oracle / "vicuna-tiny-text-lora", oracle / "llava-v1.5-tiny-pretrain")


def test_a_base_without_weights_is_incomplete(oracle, copy):
    base = copy("vicuna-tiny")
    (base / "model.safetensors").unlink()
    for adapter in ("vicuna-tiny-text-lora", "llava-v1.5-tiny-lora", "llava-v1.5-tiny-pretrain"):
        with pytest.raises(errors.IncompleteError, match=r"vicuna-tiny has .*no weights"):
            load(oracle / adapter, base)


# --- the tower


def test_a_tower_that_is_nowhere_names_the_places(copy, tmp_path):
    folder = copy("llava-v1.5-tiny")
    with pytest.raises(errors.TowerError, match=r"'clip-tiny-patch14' was not found") as caught:
        load(folder)
    assert str(folder / "clip-tiny-patch14") in str(caught.value)
    assert str(tmp_path / "clip-tiny-patch14") in str(caught.value)


def test_a_tower_of_the_hub_that_cannot_be_reached_says_so(copy, edit):
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", mm_vision_tower="openai/clip-vit-none")
    with pytest.raises(errors.TowerError, match=r"the Hugging Face hub \("):
        load(folder)


def test_a_tower_of_another_size_is_refused(copy, edit):
    folder = copy("llava-v1.5-tiny")
    tower = copy("clip-tiny-patch14")
    edit(tower / "config.json", hidden_size=32)
    with pytest.raises(errors.TowerError, match=r"features of 32 numbers.*projector takes 64"):
        load(folder)


def test_a_tower_without_its_weights_is_incomplete(copy):
    folder = copy("llava-v1.5-tiny")
    (copy("clip-tiny-patch14") / "model.safetensors").unlink()
    with pytest.raises(errors.TowerError, match=r"lacks \d+ tensors of the vision tower"):
        load(folder)


def test_a_language_model_is_no_tower(copy, edit):
    folder = copy("llava-v1.5-tiny")
    copy("vicuna-tiny")
    edit(folder / "config.json", mm_vision_tower="vicuna-tiny")
    with pytest.raises(errors.TowerError, match=r"is a llama, not a vision tower"):
        load(folder)


# --- weight files


def sharded(folder: Path) -> list[Path]:
    """The weights of a folder in two shards with an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    halves = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, keys in halves.items():
        save_file({key: state[key] for key in keys}, folder / file)
    weight_map = {key: file for file, keys in halves.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return [folder / file for file in halves]


def test_shards_load(oracle, copy):
    base = copy("vicuna-tiny")
    sharded(base)
    assert load(oracle / "vicuna-tiny-text-lora", base).card.parameters == 1260416


def test_a_missing_shard_is_named(copy):
    folder = copy("vicuna-tiny")
    sharded(folder)[1].unlink()
    with pytest.raises(
        errors.IncompleteError, match=r"lacks 1 of 2 weight files.*model-00002-of-00002.safetensors"
    ):
        load(folder)


def test_shards_without_their_index_are_named(copy):
    folder = copy("vicuna-tiny")
    sharded(folder)[1].unlink()
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(
        errors.IncompleteError,
        match=r"1 of 2 parts.*Missing: model-00002-of-00002.safetensors, model.safetensors.index",
    ):
        load(folder)


def test_a_file_that_git_did_not_fetch_says_how_to(copy):
    folder = copy("vicuna-tiny")
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (folder / "model.safetensors").write_text(note)
    with pytest.raises(errors.IncompleteError, match=r"git -C \S+ lfs pull"):
        load(folder)


@pytest.fixture
def unread(monkeypatch):
    """Fails where a tensor is read: what is refused, is refused before that."""

    def read(*_args):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("worker.checkpoint.tensors.TensorStore.read", read)


@pytest.mark.usefixtures("unread")
def test_a_language_model_that_lacks_layers_is_refused_before_a_weight_is_read(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", num_hidden_layers=5)
    with pytest.raises(errors.IncompleteError, match=r"lacks 18 tensors.*layers.3.*and 15 more"):
        load(folder)


@pytest.mark.usefixtures("unread")
def test_a_config_of_another_size_is_refused_before_a_weight_is_read(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", hidden_size=256)
    with pytest.raises(errors.CheckpointError, match=r"30 tensors.*3000 x 128 instead of 3000 x 2"):
        load(folder)


def test_a_shard_that_is_cut_short_is_named(copy):
    folder = copy("vicuna-tiny")
    shard = sharded(folder)[0]
    os.truncate(shard, shard.stat().st_size - 100)
    with pytest.raises(
        errors.IncompleteError, match=r"00001-of-00002.safetensors is cut short: \d+"
    ):
        load(folder)


def test_a_pickle_that_is_cut_short_is_named(oracle, copy):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    file = folder / "pytorch_model.bin"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(errors.IncompleteError, match=r"pytorch_model.bin is cut short or damaged"):
        load(folder)


def test_an_index_may_not_name_files_of_other_folders(copy):
    folder = copy("vicuna-tiny")
    sharded(folder)
    index = {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(errors.UnsafeFileError, match=r"'../elsewhere.safetensors'"):
        load(folder)


class Payload:
    """What a malicious pickle would run."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return (Path.touch, (self._marker,))


def test_a_malicious_pickle_is_refused_and_does_not_run(oracle, copy, tmp_path):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    marker = tmp_path / "ran"
    torch.save({"model.norm.weight": Payload(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(errors.UnsafeFileError, match=r"refused.*could run code"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    with pytest.raises(errors.UnsafeFileError, match=r"refused.*could run code"):
        load(folder)
    assert not marker.exists()


def test_a_checkpoint_without_its_projector_is_incomplete(copy):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    kept = {name: tensor for name, tensor in state.items() if "mm_projector" not in name}
    torch.save(kept, folder / "pytorch_model.bin")
    with pytest.raises(errors.IncompleteError, match=r"lacks 4 tensors of the projector"):
        load(folder)


# --- tokenizer and template


def test_a_tokenizer_of_another_size_is_refused(copy, edit):
    folder = copy("vicuna-tiny")
    state = load_file(folder / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        state[name] = state[name][:2000].clone()
    save_file(state, folder / "model.safetensors")
    edit(folder / "config.json", vocab_size=2000)
    with pytest.raises(errors.TokenizerError, match=r"3000 tokens and the model 2000 embeddings"):
        load(folder)


def test_a_missing_tokenizer_says_what_was_looked_for(copy):
    folder = copy("vicuna-tiny")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(
        errors.TokenizerError, match=r"no tokenizer \(tokenizer.json or tokenizer.m"
    ):
        load(folder)


def test_an_unknown_template_lists_the_known(oracle):
    with pytest.raises(errors.TemplateError, match=r"'vicuna_v9'.*vicuna_v1"):
        load(oracle / "vicuna-tiny", chat_template="vicuna_v9")


def test_a_template_file_that_does_not_parse_names_the_line(oracle, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("hello\n{% for %}")
    with pytest.raises(errors.TemplateError, match=r"mine.jinja, line 2"):
        load(oracle / "vicuna-tiny", chat_template=str(file))


# --- adapters


def test_an_adapter_for_layers_that_the_base_lacks_names_them(oracle, copy, edit):
    base = copy("vicuna-tiny")
    edit(base / "config.json", num_hidden_layers=2)
    with pytest.raises(
        errors.AdapterError, match=r"4?\d* modules that its base lacks: model.layers.2.self_attn"
    ):
        load(oracle / "vicuna-tiny-text-lora", base)


def test_an_adapter_of_another_width_is_refused_before_loading(oracle, copy):
    adapter = copy("vicuna-tiny-text-lora")
    file = adapter / "adapter_model.safetensors"
    state = load_file(file)
    state = {
        name: tensor[:, :64].clone() if "lora_A" in name else tensor
        for name, tensor in state.items()
    }
    save_file(state, file)
    with pytest.raises(errors.AdapterError, match=r"has 128 inputs, the adapter's lora_A 64"):
        load(adapter, oracle / "vicuna-tiny")


def test_an_adapter_that_is_no_lora_is_named(oracle, copy, edit):
    adapter = copy("vicuna-tiny-text-lora")
    edit(adapter / "adapter_config.json", peft_type="PREFIX_TUNING")
    with pytest.raises(errors.AdapterError, match=r"is a PREFIX_TUNING adapter"):
        load(adapter, oracle / "vicuna-tiny")


def test_an_adapter_without_weights_is_incomplete(oracle, copy):
    adapter = copy("vicuna-tiny-text-lora")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(
        errors.IncompleteError, match=r"no adapter_model.safetensors or adapter_mod"
    ):
        load(adapter, oracle / "vicuna-tiny")


def test_a_llava_adapter_without_its_projector_is_incomplete(oracle, copy):
    adapter = copy("llava-v1.5-tiny-lora")
    (adapter / "non_lora_trainables.bin").unlink()
    with pytest.raises(errors.IncompleteError, match=r"without its projector.*non_lora_trainables"):
        load(adapter, oracle / "vicuna-tiny")


def test_an_adapter_is_no_base(oracle, copy):
    other = copy("vicuna-tiny-text-lora", "other")
    with pytest.raises(errors.BaseModelError, match=r"is itself an adapter"):
        load(oracle / "vicuna-tiny-text-lora", other)


def test_an_adapter_is_not_merged_into_quantised_weights(oracle):
    with pytest.raises(errors.QuantisationError, match=r"round the adapter to 4bit.*unmerged"):
        load(oracle / "llava-v1.5-tiny-lora", merge_lora=True, quantisation=Quantisation.NF4)


def test_a_checkpoint_that_is_no_adapter_cannot_be_merged(oracle):
    with pytest.raises(errors.AdapterError, match="is no adapter"):
        load(oracle / "llava-v1.5-tiny", merge_lora=True)


# --- quantised on disk


def test_what_is_quantised_already_is_not_quantised_again(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(errors.QuantisationError, match=r"already \(awq\).*leave out --load-4bit"):
        load(folder, quantisation=Quantisation.NF4)


@pytest.mark.skipif(importlib.util.find_spec("optimum") is not None, reason="optimum is there")
def test_what_is_quantised_with_a_package_that_is_missing_names_it(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(errors.QuantisationError, match=r"not installed.*pip install optimum"):
        load(folder)


# --- devices and memory


def test_a_device_that_bitsandbytes_does_not_serve_is_refused(oracle):
    spec = LoadSpec(str(oracle / "vicuna-tiny"), device="mps", quantisation=Quantisation.NF4)
    with pytest.raises(errors.QuantisationError, match=r"4bit weights on mps; it serves cpu, cuda"):
        load_checkpoint(spec, lambda _progress: None)


def test_a_device_that_does_not_exist_is_named(oracle):
    spec = LoadSpec(str(oracle / "vicuna-tiny"), device="cuda:99")
    with pytest.raises(errors.CheckpointError, match=r"cuda:99 is a GPU that is not there"):
        load_checkpoint(spec, lambda _progress: None)


def test_a_header_that_belies_its_own_shapes_is_damaged(copy):
    folder = copy("vicuna-tiny")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    assert data.count(b'"shape":[3000,128]') == 2
    file.write_bytes(data.replace(b'"shape":[3000,128]', b'"shape":[3001,128]'))
    with pytest.raises(
        errors.IncompleteError, match=r"is damaged: \S+ is said to have 768000 bytes"
    ):
        load(folder)


def test_a_file_that_shrinks_while_it_is_read_is_named(copy):
    file = copy("vicuna-tiny") / "model.safetensors"
    header = next(h for h in read_headers(file) if h.name == "model.norm.weight")
    os.truncate(file, header.offset + 10)
    with pytest.raises(errors.IncompleteError, match="was cut short while it was being read"):
        read_tensor(header, header.offset)
