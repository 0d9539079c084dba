"""The words of the page in English and Chinese. English is the key; what has no translation fails.

Messages of workers and of the controller are shown as they come.
"""

from __future__ import annotations

import re
from enum import StrEnum

from webui.chinese import CHINESE


class Language(StrEnum):
    """A language of the page."""

    ENGLISH = "en"
    CHINESE = "zh"


class Words:
    """Says things in one language.

    Args:
        language: which.
    """

    def __init__(self, language: Language = Language.ENGLISH) -> None:
        self.language = language

    def __call__(self, english: str, **values: object) -> str:
        """The phrase, with its ``{names}`` filled in.

        Raises:
            KeyError: there is no translation.
        """
        phrase = CHINESE[english] if self.language is Language.CHINESE else english
        return phrase.format(**values) if values else phrase

    def message(self, english: str) -> str:
        """An error's message: translated if it is one that often comes up, else as it is."""
        if self.language is Language.CHINESE:
            return CHINESE.get(english, english)
        return english


ENGLISH = Words()
_PREFERENCE = re.compile(r"([a-z]+)(?:-[a-z0-9-]+)?\s*(?:;\s*q=([0-9.]+))?", re.IGNORECASE)


def language_of(asked: str | None, accept_language: str) -> Language:
    """The language of a page.

    Args:
        asked: what the address or a cookie says; anything else than a known code is ignored.
        accept_language: the browser's header of that name.
    """
    if asked in set(Language):
        return Language(asked)
    ranked: list[tuple[float, Language]] = []
    for code, weight in _PREFERENCE.findall(accept_language):
        if code.lower() in set(Language):
            ranked.append((float(weight) if weight else 1.0, Language(code.lower())))
    # The first of the most wanted ones.
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else Language.ENGLISH
