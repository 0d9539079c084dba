"""What is said of values that pydantic refuses."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from controller.chassis.wording import cause_of


class Settings(BaseModel):
    port: int = Field(default=1, ge=1, le=9)
    share: float = Field(default=0.5, gt=0, lt=1)
    mode: Literal["once", "reload"] = "once"
    name: str = Field(default="a", min_length=1, pattern="^[a-z]*$")
    needed: int = 0
    nested: dict[str, int] = {}


def cause(expected: str | None = None, **values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    return cause_of(caught.value.errors()[0], expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"port": "x"}, "expected a whole number, not 'x'"),
        ({"port": 1.5}, "expected a whole number, not 1.5"),
        ({"port": 0}, "expected 1 or more, not 0"),
        ({"port": 10}, "expected 9 or less, not 10"),
        ({"port": None}, "expected a whole number, and it is empty; leave the key out for its"),
        ({"share": 0}, "expected more than 0.0, not 0"),
        ({"share": 1}, "expected less than 1.0, not 1"),
        ({"mode": "twice"}, "expected 'once' or 'reload', not 'twice'"),
        ({"name": ""}, "expected some text, not ''"),
        ({"name": True}, "expected text, not True; put it in quotes"),
        ({"name": ["a"]}, "expected text, not ['a']"),
        ({"nested": ["a" * 99]}, "expected keys and values, not ['aaaaaaa"),
    ],
)
def test_a_refused_value_is_told_in_words_of_files_and_command_lines(values, said):
    assert cause(**values).startswith(said)
    assert len(cause(**values)) < 120


def test_a_pattern_is_told_by_what_it_stands_for_where_somebody_knows_that():
    assert cause("small letters", name="A") == "expected small letters, not 'A'"
    assert "'^[a-z]*$', not 'A'" in cause(name="A")
