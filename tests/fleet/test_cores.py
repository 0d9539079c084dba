"""How many cores may be used."""

from __future__ import annotations

import os

import pytest

from controller.fleet.cores import usable_cores

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", HERE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        (f"{(HERE + 5) * 100000} 100000", HERE),
        ("nonsense", HERE),
    ],
)
def test_a_containers_quota_bounds_the_cores(tmp_path, cpu_max, cores):
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_a_control_group_the_affinity_decides(tmp_path):
    assert usable_cores(tmp_path / "nothing") == HERE
