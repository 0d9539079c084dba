"""English: many wordings of every question, exactly one answer to each meaning."""

from recipe.english.answers import answer, note
from recipe.english.questions import ask
from recipe.english.words import called

__all__ = ["answer", "ask", "called", "note"]
