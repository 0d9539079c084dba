"""The check of configs/constraints.txt."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "lib" / "check_pins.py"))
problems, needed = CHECK["problems"], CHECK["needed"]

GOOD = ["# a comment", "a==1.0", "b-c==2.1.post1"]
WANTED = {"a", "b-c"}


def test_exact_sorted_pins_of_what_is_needed_are_fine():
    assert list(problems(GOOD, WANTED)) == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["a>=1.0", "b-c==2"], "not an exact pin of a canonical name: a>=1.0"),
        (["a==1.0", "b_c==2"], "not an exact pin of a canonical name: b_c==2"),
        (["a==1.0+cpu", "b-c==2"], "not an exact pin of a canonical name: a==1.0+cpu"),
        (["a==1.0", "a==1.1", "b-c==2"], "pinned more than once: a"),
        (["b-c==2", "a==1.0"], "not sorted"),
        (["a==1.0"], "needed and not pinned: b-c"),
        ([*GOOD, "d==1"], "pinned and not needed: d"),
    ],
)
def test_what_is_wrong_is_named(lines, problem):
    assert problem in list(problems(lines, WANTED))


def test_what_an_extra_needs_includes_what_that_needs():
    base, webui = needed("paragone", ()), needed("paragone", ("webui",))
    assert "pydantic-core" in base
    assert "gradio" not in base
    assert {"gradio", "gradio-client"} <= webui
