"""What pydantic finds wrong with a value, in the words of YAML files and command lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic_core import ErrorDetails

# A wrong value is shown as far as this.
_MOST_CHARACTERS: Final = 60

_EXPECTED: Final[Mapping[str, str]] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "enum": "{expected}",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "model_type": "keys and values",
    "string_too_short": "some text",
    "string_type": "text",
    "tuple_type": "a list",
}


def cause_of(error: ErrorDetails, expected: str | None = None) -> str:
    """Such as ``expected a list, not 'x'``.

    Args:
        error: one of a `ValidationError`.
        expected: what the value has to be like, where the rule that it broke is a pattern.
    """
    value = error["input"]
    if error["type"] == "string_pattern_mismatch" and expected is not None:
        wanted: str | None = expected
    else:
        wanted = _EXPECTED.get(error["type"])
    if wanted is None:  # a rule of ours, or one whose own words will do
        reason = error["msg"].removeprefix("Value error, ")
        return reason if error["type"] == "missing" else f"{reason}, not {_shown(value)}"
    for key, limit in error.get("ctx", {}).items():
        wanted = wanted.replace("{" + key + "}", str(limit))
    if value is None:
        return f"expected {wanted}, and it is empty; leave the key out for its default"
    quotes = "; put it in quotes" if wanted == "text" and isinstance(value, bool | int) else ""
    return f"expected {wanted}, not {_shown(value)}{quotes}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 3] + "..."
