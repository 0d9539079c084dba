"""Memory of the process: what is kept, and what is only taken when it is written to."""

import platform

import psutil
import pytest
import torch

from worker.engine.host_allocator import keep_freed_memory
from worker.engine.lazy_zeros import zeros

MIB = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_the_allocator_takes_its_settings():
    assert keep_freed_memory()


@pytest.mark.skipif(platform.system() != "Linux", reason="counts resident pages as Linux does")
def test_zeros_take_memory_when_they_are_written_to_and_give_it_back():
    process, like = psutil.Process(), torch.empty(0, dtype=torch.bfloat16)
    before = process.memory_info().rss
    made = zeros((64, MIB), like)
    assert (made.dtype, made.shape) == (torch.bfloat16, (64, MIB))
    assert process.memory_info().rss - before < 16 * MIB
    made[:32] = 1
    assert process.memory_info().rss - before > 48 * MIB
    assert float(made[32:].abs().max()) == 0
    view = made[:1]
    del made
    assert float(view.sum()) == MIB  # the memory is there for as long as any view of it
    del view
    assert process.memory_info().rss - before < 16 * MIB
