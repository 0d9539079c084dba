"""Checkpoint tools: whole folders or none, and what they write loads as what it came from."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from controller.protocol.fleet import LoadProgress
from worker.checkpoint import errors, merge_files, writer
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.output import Output
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.writer import OutputTensor, write_weights
from worker.tools import command, extract_projector, merge_lora
from worker.tools.progress import ProgressBar

PROMPT = "USER: <image>\nWhat is this? ASSISTANT:"


def load(path, base=None, **options):
    spec = LoadSpec(str(path), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


@torch.inference_mode()
def logits(loaded, *images, prompt=PROMPT):
    prepared = loaded.prompting.prepare_text(prompt, images)
    return loaded.model(**loaded.inputs(prepared)).logits[0, -1]


@pytest.fixture(scope="module")
def wide(oracle):
    return Image.open(oracle / "wide.png").convert("RGB")


def hidden(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


# --- merge-lora


def test_a_merged_llava_adapter_is_a_whole_original_checkpoint(oracle, tmp_path, wide):
    out = tmp_path / "merged"
    words = [str(oracle / "llava-v1.5-tiny-lora"), str(out)]
    words += ["--model-base", str(oracle / "vicuna-tiny"), "--max-shard-size", "1MB"]
    assert merge_lora.main(words) == 0
    merged = load(out)
    assert merged.card.format == "llava"
    assert len(list(out.glob("model-*.safetensors"))) > 1
    assert not hasattr(merged.model, "peft_config")
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlavaLlamaForCausalLM"]
    # Its tower is not beside it, so its place is written down.
    assert config["mm_vision_tower"] == str((oracle / "clip-tiny-patch14").resolve())
    # The weights are rounded to the base's float16 once more than unmerged.
    unmerged = load(oracle / "llava-v1.5-tiny-lora")
    torch.testing.assert_close(logits(merged, wide), logits(unmerged, wide), atol=2e-2, rtol=0)


def test_merging_is_done_in_float32_and_rounded_once(oracle, tmp_path):
    out = tmp_path / "merged"
    assert merge_lora.main([str(oracle / "llava-v1.5-tiny-lora"), str(out)]) == 0
    written = load_file(out / "model.safetensors")
    held = load(oracle / "llava-v1.5-tiny-lora", merge_lora=True, dtype="float32")
    compared = 0
    for name, tensor in held.model.state_dict().items():
        if "language_model.layers" in name:
            original = name.replace("model.language_model.", "model.", 1)
            assert torch.equal(written[original], tensor.half()), name
            compared += 1
    assert compared == 27


def test_llavas_merge_flags_work(oracle, tmp_path):
    out = tmp_path / "merged"
    words = ["--model-path", str(oracle / "llava-v1.5-tiny-lora"), "--save-model-path", str(out)]
    assert merge_lora.main([*words, "--model-base", str(oracle / "vicuna-tiny")]) == 0
    assert (out / "tokenizer.model").is_file()


def test_an_adapter_over_a_language_model_is_merged_too(oracle, tmp_path):
    out = tmp_path / "merged"
    words = [str(oracle / "vicuna-tiny-text-lora"), str(out)]
    assert merge_lora.main([*words, "--model-base", str(oracle / "vicuna-tiny")]) == 0
    merged, unmerged = load(out), load(oracle / "vicuna-tiny-text-lora", oracle / "vicuna-tiny")
    prompt = "USER: Hello ASSISTANT:"
    torch.testing.assert_close(
        logits(merged, prompt=prompt), logits(unmerged, prompt=prompt), atol=2e-2, rtol=0
    )


def test_what_is_no_adapter_cannot_be_merged(oracle, tmp_path, capsys):
    assert merge_lora.main([str(oracle / "llava-v1.5-tiny"), str(tmp_path / "out")]) == 1
    assert "is no adapter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_loaders_own_errors_are_shown(oracle, copy, tmp_path, capsys):
    adapter = copy("llava-v1.5-tiny-lora", "inner/adapter")
    assert merge_lora.main([str(adapter), str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("paragone merge-lora: ")
    assert "Give it as --model-base" in message


# --- extract-projector


@pytest.mark.parametrize(
    "source", ["llava-v1.5-tiny", "llava-v1.5-tiny-lora", "llava-v1.5-tiny-pretrain"]
)
def test_an_extracted_projector_loads_over_a_base(oracle, copy, tmp_path, source):
    copy("clip-tiny-patch14")
    out = tmp_path / "projector"
    assert extract_projector.main([str(oracle / source), str(out)]) == 0
    assert sorted(entry.name for entry in out.iterdir()) == ["config.json", "mm_projector.bin"]
    loaded = load(out, oracle / "vicuna-tiny")
    assert loaded.card.format == "llava-projector"
    whole = load(oracle / source, oracle / "vicuna-tiny" if source != "llava-v1.5-tiny" else None)
    mine = loaded.model.model.multi_modal_projector.state_dict()
    for name, tensor in whole.model.state_dict().items():
        if ".multi_modal_projector." in name:
            assert torch.equal(mine[name.partition(".multi_modal_projector.")[2]], tensor)


def test_the_newline_of_an_anyres_model_goes_with_its_projector(oracle, tmp_path):
    out = tmp_path / "projector"
    words = ["--model-path", str(oracle / "llava-v1.6-tiny"), "--output", str(out)]
    assert extract_projector.main(words) == 0
    names = set(torch.load(out / "mm_projector.bin", weights_only=True))
    assert "model.image_newline" in names
    assert {name for name in names if "mm_projector" in name} == names - {"model.image_newline"}


def test_a_text_model_has_no_projector(oracle, tmp_path, capsys):
    assert extract_projector.main([str(oracle / "vicuna-tiny"), str(tmp_path / "out")]) == 1
    assert "no original LLaVA checkpoint" in capsys.readouterr().err


def test_llavas_file_name_is_answered_with_the_rule(oracle, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        extract_projector.main([str(oracle / "llava-v1.5-tiny"), str(tmp_path / "p.bin")])
    assert "OUT is a folder" in capsys.readouterr().err


# --- the folder that is written


def test_a_folder_that_is_not_empty_stays_unless_told_otherwise(oracle, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    words = [str(oracle / "llava-v1.5-tiny"), str(out)]
    assert extract_projector.main(words) == 1
    assert "is there and not empty" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "mine"
    assert extract_projector.main([*words, "--overwrite"]) == 0
    assert not (out / "notes.txt").exists()
    assert (out / "mm_projector.bin").is_file()
    assert not hidden(tmp_path)


def test_an_empty_folder_and_one_that_is_not_there_are_both_fine(oracle, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/down/new"):
        assert extract_projector.main([str(oracle / "llava-v1.5-tiny"), str(tmp_path / name)]) == 0
        assert (tmp_path / name / "mm_projector.bin").is_file()


def test_an_input_is_never_overwritten(copy, capsys):
    folder = copy("llava-v1.5-tiny", "outer/inner")
    for out in (folder, folder.parent):
        assert extract_projector.main([str(folder), str(out), "--overwrite"]) == 1
        assert "is read from; write elsewhere" in capsys.readouterr().err
    assert (folder / "pytorch_model.bin").is_file()


def test_a_file_is_no_folder(oracle, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert extract_projector.main([str(oracle / "llava-v1.5-tiny"), str(tmp_path / "out")]) == 1
    assert "is a file, not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("was_there", [False, True])
def test_a_failure_half_way_leaves_what_was_there(oracle, tmp_path, monkeypatch, capsys, was_there):
    out = tmp_path / "out"
    if was_there:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    written = []

    def full(tensor):
        written.append(tensor)
        if len(written) > 5:
            raise OSError(28, "No space left on device")
        return memoryview(b"")

    monkeypatch.setattr(writer, "_bytes", full)
    words = [str(oracle / "llava-v1.5-tiny-lora"), str(out), "--overwrite"]
    assert merge_lora.main(words) == 1
    assert "could not be written: [Errno 28] No space left" in capsys.readouterr().err
    assert not hidden(tmp_path)
    assert out.exists() is was_there
    if was_there:
        assert (out / "notes.txt").read_text() == "mine"


def test_an_interrupted_tool_leaves_nothing(oracle, tmp_path, monkeypatch, capsys):
    def interrupt(tensor):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_bytes", interrupt)
    out = tmp_path / "out"
    assert merge_lora.main([str(oracle / "llava-v1.5-tiny-lora"), str(out)]) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_before_anything_is_written(oracle, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage)
    with pytest.raises(errors.OutputError, match=r"has 0.00 GB free and 0.00 GB are to be written"):
        merge_files.merge_lora(str(oracle / "llava-v1.5-tiny-lora"), None, Output(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


# --- weight files


def test_shards_hold_each_tensor_once_and_no_more_than_was_asked_for(tmp_path):
    torch.manual_seed(0)
    state = {f"t{n}": torch.randn(n + 1, 10) for n in range(6)}
    state["scalar"], state["empty"] = torch.tensor(3.0), torch.zeros(0, 4)
    seen = []
    write_weights(
        tmp_path,
        [OutputTensor(name, tuple(t.shape), "float32", lambda t=t: t) for name, t in state.items()],
        max_shard_bytes=300,
        on_written=seen.append,
    )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    total = sum(t.numel() * 4 for t in state.values())
    assert index["metadata"]["total_size"] == sum(seen) == total
    found = {}
    for name in sorted(set(index["weight_map"].values())):
        shard = load_file(tmp_path / name)
        assert sum(t.numel() * 4 for t in shard.values()) <= 300
        assert {key for key, file in index["weight_map"].items() if file == name} == set(shard)
        found |= shard
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 MB", 5 * 10**8), ("1.5kb", 1500), ("7", 7)]
)
def test_sizes_are_read_as_transformers_writes_them(text, size):
    assert command.size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 apples", "0"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(Exception, match=re.escape(repr(text))):
        command.size_in_bytes(text)


# --- the command line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_and_a_file_does_not():
    moments = iter([0.0, 1.0, 1.01, 2.0])
    terminal, file = Terminal(), io.StringIO()
    bar = ProgressBar(terminal, clock=lambda: next(moments))
    for done in (10, 20, 100):
        progress = LoadProgress(
            phase="merging", fraction=done / 100, bytes_done=done * 10**7, bytes_total=10**9
        )
        bar.show(progress)
        ProgressBar(file).show(progress)
    bar.close()
    # The second came a hundredth of a second after the first.
    assert re.findall(r"(\d+)%  ([\d.]+) of 1.00 GB, (\d+) MB/s", terminal.getvalue()) == [
        ("10", "0.10", "100"),
        ("100", "1.00", "500"),
    ]
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    "tool", ["convert", "merge-lora", "extract-projector", "apply-delta", "make-delta"]
)
def test_the_tools_are_commands_of_paragone(tool):
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", tool, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"usage: paragone {tool} ")
    assert "--overwrite" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "arguments are required: OUT (or --save-model-path)"),
        ([], "arguments are required: PATH (or --model-path)"),
        (["a", "b", "--model-path", "c"], "PATH is given twice"),
    ],
)
def test_a_wrong_command_line_says_what_is_missing(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        merge_lora.main(words)
    assert message in capsys.readouterr().err
