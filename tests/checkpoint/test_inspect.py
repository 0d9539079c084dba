"""`paragone inspect` says what a checkpoint is, needs, and whether it fits; it loads nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
import transformers

from controller.protocol.fleet import ModelCard
from tests.checkpoint.tiny_models import FAMILIES
from worker.checkpoint import errors, memory
from worker.checkpoint.host_memory import HostMemory
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.inspect.__main__ import main
from worker.inspect.inspection import inspect
from worker.inspect.text import render


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, request):
    """Fails a test in which a tensor is read."""
    if request.node.name == "test_a_loaded_models_card_has_the_same_facts":
        return
    monkeypatch.setattr(
        "worker.checkpoint.tensors.TensorStore.read", lambda *_: pytest.fail("a weight was read")
    )


def look(path, base=None, **options):
    return inspect(LoadSpec(str(path), model_base=base and str(base), device="cpu", **options))


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("llava-v1.5-tiny", None, ("llava", "mlp2x_gelu", "clip_vision_model", "vicuna_v1")),
        ("llava-v1.6-tiny", None, ("llava", "mlp2x_gelu", "clip_vision_model", "vicuna_v1")),
        (
            "llava-v1.5-tiny-pretrain",
            "vicuna-tiny",
            ("llava-projector", "mlp2x_gelu", "clip_vision_model", "vicuna_v1"),
        ),
        (
            "llava-v1.5-tiny-lora",
            "vicuna-tiny",
            ("llava-lora", "mlp2x_gelu", "clip_vision_model", "vicuna_v1"),
        ),
        ("vicuna-tiny", None, ("text", None, None, "vicuna_v1")),
        ("vicuna-tiny-text-lora", "vicuna-tiny", ("text-lora", None, None, "vicuna_v1")),
    ],
)
def test_each_format_is_described(oracle, name, base, expected):
    found = look(oracle / name, base and oracle / base)
    facts = found.card.facts
    assert expected == (found.card.format, facts.projector, facts.vision_tower, facts.template)
    assert (found.card.base, found.card.adapter) == (base, name if "lora" in name else None)
    assert facts.language_model == "llama"
    assert sum(facts.parameters_by_part.values()) == found.card.parameters
    assert facts.sample_prompt.endswith(" ASSISTANT:")
    assert ("<image>\nWhat is in this picture?" in facts.sample_prompt) is bool(facts.vision_tower)
    assert bool(facts.image_tokens) is bool(facts.vision_tower)
    assert found.fits
    assert {row.held for row in found.memory} == {"float32", "bfloat16", "8bit", "4bit"}


def test_image_tokens_are_the_processors_own(oracle):
    assert set(look(oracle / "llava-v1.5-tiny").card.facts.image_tokens.values()) == {16}
    anyres = look(oracle / "llava-v1.6-tiny")
    assert len(set(anyres.card.facts.image_tokens.values())) > 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_hugging_face_model_is_described_by_its_own_processor(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, processor = FAMILIES["idefics3"].make()
        transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
    found = look(tmp_path)
    facts = found.card.facts
    assert (found.card.format, found.card.architecture) == (
        "vision-language",
        "Idefics3ForConditionalGeneration",
    )
    assert facts.projector == "Idefics3Connector"
    assert facts.template == f"{tmp_path.parent.name}/{tmp_path.name}"
    assert facts.image_tokens["1920x1080"] > 4
    assert facts.sample_prompt.startswith("user: ")


def test_memory_is_that_of_weights_and_context(oracle):
    found = look(oracle / "vicuna-tiny")
    rows = {row.held: row for row in found.memory}
    assert rows["bfloat16"].weights == 2 * 1260416
    assert rows["bfloat16"].context == 2048 * 2 * 3 * 128 * 2
    assert rows["float32"].context == 2 * rows["bfloat16"].context
    assert rows["4bit"].weights < rows["8bit"].weights < rows["float32"].weights
    for row in rows.values():
        assert row.least > row.weights


def test_a_loaded_models_card_has_the_same_facts(oracle):
    loaded = load_checkpoint(
        LoadSpec(str(oracle / "llava-v1.5-tiny"), device="cpu"), lambda _progress: None
    )
    assert loaded.card == look(oracle / "llava-v1.5-tiny").card
    assert ModelCard.model_validate_json(loaded.card.model_dump_json()) == loaded.card


def test_what_does_not_fit_is_a_finding_and_not_an_error(oracle, monkeypatch):
    monkeypatch.setattr(memory, "host_memory", lambda: HostMemory(5_200_000, "/a/cgroup"))
    found = look(oracle / "vicuna-tiny")
    assert not found.fits
    assert "It fits with --dtype bfloat16" in found.shortage
    assert {row.held: row.fits for row in found.memory} == {
        "float32": False,
        "bfloat16": True,
        "8bit": True,
        "4bit": True,
    }
    text = render(found)
    assert "5.0 MiB on cpu, within /a/cgroup" in text
    assert "verdict         not enough memory on cpu" in text


def test_errors_are_the_loaders(oracle):
    with pytest.raises(errors.BaseModelError, match="as --model-base"):
        look(oracle / "llava-v1.5-tiny-pretrain")


# --- the command


def test_the_command_prints_all_of_it(oracle, capsys):
    code = main(
        [
            *(str(oracle / "llava-v1.5-tiny-lora"), "--model-base", str(oracle / "vicuna-tiny")),
            *("--device", "cpu", "--load-8bit"),
        ]
    )
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line[:16].strip(): line[16:] for line in lines if line[:1].strip()}
    assert shown["format"] == "llava-lora"
    assert shown["adapter"] == "llava-v1.5-tiny-lora"
    assert shown["quantisation"] == "8bit"
    assert shown["dtype"] == "float32 on cpu"
    assert shown["context"] == "2048 tokens"
    assert shown["image tokens"].startswith("336x336: 16, ")
    assert shown["verdict"] == "it fits as 8-bit"
    assert any(line.startswith("  4-bit") and line.endswith("fits") for line in lines)


def test_json_is_the_inspection(oracle, capsys):
    assert main([str(oracle / "vicuna-tiny"), "--device", "cpu", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["card"]["facts"]["language_model"] == "llama"
    assert printed["devices"][0]["device"] == "cpu"
    assert printed["fits"] is True


def test_a_failure_is_one_line_and_an_exit_code(oracle, capsys, tmp_path):
    assert main([str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith(f"paragone inspect: {tmp_path}/nowhere is not there")
    assert main([str(oracle / "vicuna-tiny"), "--load-8bit", "--load-4bit"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert main([]) == 2


def test_a_hub_repository_is_found_in_the_cache_at_its_commit_and_the_commit_is_shown(
    oracle, tmp_path
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--lab--vicuna"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "stable").write_text(commit)
    shutil.copytree(oracle / "vicuna-tiny", repository / "snapshots" / commit)
    command = [sys.executable, "-m", "worker.inspect", "lab/vicuna", "--revision", "stable"]
    done = subprocess.run(
        [*command, "--device", "cpu"],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"revision        {commit}\n" in done.stdout
    assert done.stdout.startswith("name            vicuna\n")


def test_a_dtype_that_is_asked_for_is_shown_once(oracle):
    spec = LoadSpec(str(oracle / "vicuna-tiny"), device="cpu", dtype="bfloat16")
    found = inspect(spec)
    assert found.card.dtype == "bfloat16"
    assert torch.device(found.card.facts.devices[0]) == torch.device("cpu")
    assert {row.held for row in found.memory} == {"bfloat16", "8bit", "4bit"}
