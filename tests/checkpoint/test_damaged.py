"""Folders that were copied, fetched or written badly: each names the file, and what to do."""

from __future__ import annotations

import json
import shutil

import pytest
import transformers

from worker.checkpoint import errors
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
ADAPTER_OVER = "vicuna-tiny"


def load(path, base=None, **options):
    spec = LoadSpec(str(path), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


# --- what a copy or a fetch leaves behind


@pytest.mark.parametrize("file", ["config.json", "tokenizer.model", "tokenizer_config.json"])
def test_any_file_that_git_did_not_fetch_says_how_to(copy, file):
    folder = copy("vicuna-tiny")
    (folder / file).write_text(POINTER)
    with pytest.raises(errors.IncompleteError, match=rf"{file} is not the file.*lfs pull"):
        load(folder)


@pytest.mark.parametrize(
    "file", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.model"]
)
def test_a_link_that_leads_nowhere_is_named_and_not_passed_over(copy, file):
    folder = copy("vicuna-tiny")
    (folder / file).unlink()
    (folder / file).symlink_to("../../blobs/0123")
    with pytest.raises(
        errors.IncompleteError, match=rf"{file} is a link to ../../blobs/0123, which is not there"
    ):
        load(folder)


def test_a_folder_that_is_a_link_to_nothing_says_so(tmp_path):
    (tmp_path / "model").symlink_to("/disk/gone")
    with pytest.raises(errors.PathError, match=r"model is a link to /disk/gone, which is not ther"):
        load(tmp_path / "model")


def test_links_that_lead_somewhere_are_as_good_as_files(copy, tmp_path):
    folder = copy("vicuna-tiny", "blobs")
    links = tmp_path / "snapshot"
    links.mkdir()
    for file in folder.iterdir():
        (links / file.name).symlink_to(file)
    assert load(links).card.format == "text"


def test_a_folder_in_place_of_a_file_is_seen_in_the_list(copy):
    folder = copy("vicuna-tiny")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(errors.IncompleteError, match=r"no weights.* model.safetensors/,"):
        load(folder)


# --- weights


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "it is empty"), (b"<html>429</html>", "it begins with b'<html>429</h")],
)
def test_what_is_no_file_of_torchs_is_damaged_and_not_dangerous(copy, content, found):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(errors.IncompleteError, match=f"no file of torch's: {found}"):
        load(folder)


def test_a_page_in_place_of_safetensors_is_damaged(copy):
    folder = copy("vicuna-tiny")
    (folder / "model.safetensors").write_text("<html>429 too many requests</html>")
    with pytest.raises(errors.IncompleteError, match=r"or no safetensors file.*download"):
        load(folder)


def header(entries: object) -> bytes:
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw


@pytest.mark.parametrize(
    ("entries", "error", "complaint"),
    [
        ([1], errors.IncompleteError, "its header does not parse"),
        ({"a": {"dtype": "F32"}}, errors.IncompleteError, "its header does not parse"),
        (
            {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}},
            errors.FormatError,
            "holds a as F4, which cannot be read here; known are F64",
        ),
    ],
)
def test_a_header_that_is_none_is_named(copy, entries, error, complaint):
    folder = copy("vicuna-tiny")
    (folder / "model.safetensors").write_bytes(header(entries) + b"\0" * 8)
    with pytest.raises(error, match=complaint):
        load(folder)


@pytest.mark.parametrize("name", ["llava-v1.5-tiny", "llava-v1.6-tiny"])
def test_an_original_checkpoint_without_weights_lacks_them_and_is_not_unknown(copy, name):
    folder = copy(name)
    for file in (*folder.glob("*.bin"), *folder.glob("*.safetensors")):
        file.unlink()
    with pytest.raises(errors.IncompleteError, match=r"has a config.json and no weights"):
        load(folder)


def test_a_tower_without_weights_is_named_by_its_own_folder(copy):
    folder = copy("llava-v1.5-tiny")
    tower = copy("clip-tiny-patch14")
    (tower / "model.safetensors").unlink()
    with pytest.raises(errors.TowerError, match=rf"{tower} lacks \d+ tensors of the vision tower"):
        load(folder)


def test_a_tower_that_does_not_say_how_images_are_scaled_is_refused(copy):
    folder = copy("llava-v1.5-tiny")
    tower = copy("clip-tiny-patch14")
    (tower / "preprocessor_config.json").unlink()
    with pytest.raises(errors.TowerError, match=rf"{tower} has no preprocessor_config.json"):
        load(folder)


# --- adapters


def test_an_adapter_without_its_config_is_not_an_unknown_model(oracle, copy):
    adapter = copy("llava-v1.5-tiny-lora")
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(
        errors.IncompleteError, match=r"adapter_model.bin and no adapter_config.json"
    ):
        load(adapter, oracle / ADAPTER_OVER)


def test_a_llava_adapter_without_its_config_is_not_taken_for_a_blind_one(oracle, copy):
    adapter = copy("llava-v1.5-tiny-lora")
    (adapter / "config.json").unlink()
    with pytest.raises(errors.IncompleteError, match=r"a LLaVA adapter .* without its config.json"):
        load(adapter, oracle / ADAPTER_OVER)


# --- tokenizers


def test_a_tokenizer_of_settings_alone_is_none(copy):
    folder = copy("vicuna-tiny")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(errors.TokenizerError, match=r"has no tokenizer .*tokenizer_config.json"):
        load(folder)


@pytest.mark.parametrize(
    ("keep", "complaint"),
    [(0, "tokenizer.model is empty"), (1000, "tokenizer.model is damaged or cut short")],
)
def test_a_damaged_tokenizer_is_named_and_no_package_is_asked_for(copy, keep, complaint):
    folder = copy("vicuna-tiny")
    file = folder / "tokenizer.model"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(errors.TokenizerError, match=complaint) as caught:
        load(folder)
    assert "tiktoken" not in str(caught.value)


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_settings_of_a_tokenizer_that_are_no_object_are_named(copy, content):
    folder = copy("vicuna-tiny")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(errors.FormatError, match=r"tokenizer_config.json (is not JSON|holds a li)"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"version": "1.0", "mod', "tokenizer.json is not JSON"),
        ("[1]", "tokenizer.json holds a list"),
        ('{"version": "1.0"}', "tokenizer.json holds no tokenizer's model"),
    ],
)
def test_a_damaged_tokenizer_json_is_named_by_its_path(copy, content, complaint):
    folder = copy("vicuna-tiny")
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(errors.TokenizerError, match=complaint):
        load(folder)


# --- configs


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("vicuna-tiny", "architectures", 1),
        ("vicuna-tiny", "model_type", ["llama"]),
        ("llava-v1.5-tiny", "mm_hidden_size", "64"),
        ("llava-v1.5-tiny", "vocab_size", 0),
        ("llava-v1.5-tiny", "rope_scaling", "linear"),
        ("llava-v1.5-tiny", "mm_vision_select_layer", "last"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_key(copy, edit, name, key, value):
    copy("clip-tiny-patch14")
    folder = copy(name)
    edit(folder / "config.json", **{key: value})
    with pytest.raises(errors.FormatError, match=rf"config.json has {key} .* is expected"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("config.json", "patch_size", 0), ("preprocessor_config.json", "image_mean", 0.5)],
)
def test_a_towers_values_are_checked_too(copy, edit, file, key, value):
    folder = copy("llava-v1.5-tiny")
    edit(copy("clip-tiny-patch14") / file, **{key: value})
    with pytest.raises(errors.FormatError, match=rf"{file} has {key} .* is expected"):
        load(folder)


def test_an_adapters_values_are_checked_too(oracle, copy, edit):
    adapter = copy("vicuna-tiny-text-lora")
    edit(adapter / "adapter_config.json", rank_pattern=[1])
    with pytest.raises(errors.FormatError, match=r"adapter_config.json has rank_pattern \[1\]"):
        load(adapter, oracle / ADAPTER_OVER)


def test_an_adapters_config_that_peft_does_not_take_is_named(oracle, copy, edit):
    adapter = copy("vicuna-tiny-text-lora")
    edit(adapter / "adapter_config.json", task_type="POETRY")
    with pytest.raises(errors.AdapterError, match=r"not one that PEFT takes: .*POETRY"):
        load(adapter, oracle / ADAPTER_OVER)


def test_a_later_transformers_is_asked_for_where_one_saved_the_checkpoint(copy, edit):
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", model_type="llama_next_17", transformers_version="99.1.0.dev0")
    with pytest.raises(errors.ArchitectureError) as caught:
        load(folder)
    assert f"which transformers {transformers.__version__} cannot load" in str(caught.value)
    assert "was saved by transformers 99.1.0.dev0: install that or a later" in str(caught.value)


def test_a_checkpoint_of_the_hubs_cache_without_its_files_is_named(copy, tmp_path):
    folder = copy("vicuna-tiny", "blobs")
    snapshot = tmp_path / "snapshots"
    snapshot.mkdir()
    for file in folder.iterdir():
        (snapshot / file.name).symlink_to(f"../blobs/{file.name}")
    shutil.rmtree(folder)
    with pytest.raises(errors.IncompleteError, match=r"Copy the folder with what its links"):
        load(snapshot)
