"""Tensors come from their files one by one, and leave nothing beside what is made of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from worker.checkpoint.errors import IncompleteError
from worker.checkpoint.headers import TensorHeader, read_headers
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.tensors import map_tensor, read_tensor

TAKE = pytest.mark.parametrize("take", [map_tensor, read_tensor])


@pytest.fixture
def file(copy):
    return copy("vicuna-tiny") / "model.safetensors"


def mapped_bytes(file: Path) -> int:
    """How much of a file this process has mapped."""
    ranges = (
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(file))
    )
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


@TAKE
def test_every_tensor_is_what_safetensors_reads(file, take):
    expected = load_file(file)
    for header in read_headers(file):
        assert torch.equal(take(header, header.offset), expected[header.name])


@TAKE
def test_a_pickles_tensors_are_taken_at_their_places(oracle, take):
    path = oracle / "llava-v1.5-tiny" / "pytorch_model.bin"
    expected = torch.load(path, weights_only=True)
    for header in read_headers(path):
        assert torch.equal(take(header, header.offset), expected[header.name])


@TAKE
def test_an_empty_tensor_has_its_shape(file, take):
    header = TensorHeader("none", (0, 3), "float16", 0, file, 8)
    assert take(header, 8).shape == (0, 3)


@TAKE
def test_a_file_that_became_too_short_is_named(file, take):
    header = next(h for h in read_headers(file) if h.name == "model.norm.weight")
    os.truncate(file, header.offset + 10)
    with pytest.raises(IncompleteError, match="was cut short while it was being read"):
        take(header, header.offset)


def test_a_mapped_tensor_that_is_written_to_leaves_the_file_alone(file):
    before = file.read_bytes()
    header = read_headers(file)[0]
    map_tensor(header, header.offset).fill_(1)
    assert file.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_a_file_stays_mapped_only_where_its_tensors_are_taken_as_they_are(copy):
    folder = copy("vicuna-tiny")
    file = folder / "model.safetensors"

    def load(dtype, **options):
        spec = LoadSpec(str(folder), device="cpu", dtype=dtype, **options)
        return load_checkpoint(spec, lambda _: None)

    converted = load("float32")
    assert mapped_bytes(file) == 0
    read = load("float16", mmap=False)
    assert mapped_bytes(file) == 0
    assert torch.equal(read.model.lm_head.weight.float(), converted.model.lm_head.weight)
    as_it_is = load("float16")
    assert mapped_bytes(file) >= file.stat().st_size
    for ours, theirs in zip(as_it_is.model.parameters(), converted.model.parameters(), strict=True):
        assert torch.equal(ours.float(), theirs)
    del as_it_is, ours
    assert mapped_bytes(file) == 0
