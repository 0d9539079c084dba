"""The page in two languages, both of them whole."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

import webui
from webui.chinese import CHINESE
from webui.feedback_view import REASONS
from webui.language import Language, Words, language_of

_SOURCES = sorted(Path(webui.__path__[0]).rglob("*.py"))


def _phrases() -> set[str]:
    """Every phrase that the code says in the reader's language."""
    phrases = {reason for reasons in REASONS.values() for reason in reasons}
    for source in _SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "words" and isinstance(node.args[0], ast.Constant):
                phrases.add(node.args[0].value)
    return phrases


def _fields(phrase: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase) if name}


def test_every_phrase_of_the_page_has_its_chinese() -> None:
    phrases = _phrases()
    assert len(phrases) > 100  # or the search above finds nothing
    assert phrases - set(CHINESE) == set()


def test_translations_have_the_same_gaps_to_fill() -> None:
    assert [key for key, chinese in CHINESE.items() if _fields(key) != _fields(chinese)] == []


def test_a_phrase_is_said_in_the_language_that_was_chosen() -> None:
    assert Words(Language.CHINESE)("Stop column {number}", number=2) == "停止第 2 列"
    assert Words()("Stop column {number}", number=2) == "Stop column 2"
    assert Words(Language.CHINESE).message("the worker was lost") == "the worker was lost"


@pytest.mark.parametrize(
    ("asked", "accepted", "language"),
    [
        (None, "", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "de-DE,de;q=0.9,en;q=0.5,zh;q=0.6", "zh"),
        (None, "fr", "en"),
        ("zh", "en", "zh"),
        ("xx", "en-GB", "en"),
    ],
)
def test_the_address_decides_then_the_browser(
    asked: str | None, accepted: str, language: str
) -> None:
    assert language_of(asked, accepted) == language
