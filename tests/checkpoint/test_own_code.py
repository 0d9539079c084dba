"""Models that transformers does not have run on code that came with them, where asked."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from controller.protocol.chat import ChatMessage
from worker.checkpoint import errors
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.engine.batchable import why_not_batched

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({marker!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def load(path, **options):
    spec = LoadSpec(str(path), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


@pytest.fixture
def ran(tmp_path):
    """A file that the code makes when it runs."""
    return tmp_path / "ran"


@pytest.fixture
def own(copy, edit, ran, tmp_path, monkeypatch):
    """A language model of a type that is its own."""
    # Where transformers copies code to, so that it can be imported.
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    folder = copy("vicuna-tiny", "own_llama_tiny")
    (folder / "own.py").write_text(CODE.format(marker=str(ran)))
    edit(
        folder / "config.json",
        model_type="own_llama",
        architectures=["OwnModel"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    return folder


def test_no_code_runs_that_was_not_asked_for_and_the_flag_is_named(own, ran):
    with pytest.raises(errors.ArchitectureError, match=r"runs only with --trust-remote-code"):
        load(own)
    assert not ran.exists()


def test_code_that_was_asked_for_answers_as_the_model_that_it_is(oracle, own, ran):
    loaded = load(own, trust_remote_code=True, chat_template="vicuna_v1")
    assert ran.exists()
    assert type(loaded.model).__name__ == "OwnModel"
    assert loaded.card.format == "text"
    known = load(oracle / "vicuna-tiny")
    prompt = known.prepare([ChatMessage(role="user", content="Hello")])
    with torch.inference_mode():
        expected = known.model(**known.inputs(prompt)).logits
        assert torch.equal(loaded.model(**loaded.inputs(prompt)).logits, expected)


def test_what_runs_on_code_of_its_own_answers_one_request_after_the_other(own):
    loaded = load(own, trust_remote_code=True, chat_template="vicuna_v1")
    assert "code that came with it" in str(why_not_batched(loaded))


@pytest.mark.parametrize("code", ["import nothing_of_that_name", "def broken(:", "1 / 0"])
def test_code_that_cannot_be_run_says_what_it_says(own, code):
    (own / "own.py").write_text(code)
    with pytest.raises(errors.FormatError, match=r"nothing_of_that_name|invalid syntax|division"):
        load(own, trust_remote_code=True, chat_template="vicuna_v1")


def test_a_model_that_transformers_has_runs_on_transformers_code(oracle, tmp_path, ran):
    folder = tmp_path / "known"
    shutil.copytree(oracle / "vicuna-tiny", folder)
    (folder / "own.py").write_text(CODE.format(marker=str(ran)))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load(folder, trust_remote_code=True)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert not ran.exists()
