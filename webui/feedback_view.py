"""What a person may say of an answer: reasons to pick, and a note."""

from __future__ import annotations

from html import escape

from webui.answer import Feedback, Rating
from webui.language import Words

REASONS: dict[Rating | None, tuple[str, ...]] = {
    Rating.UP: ("correct", "detailed", "concise", "well written"),
    Rating.DOWN: ("wrong", "not in the image", "missed something", "ignored the question",
                  "wrong language", "repeats itself"),
    Rating.FLAG: ("harmful", "private", "offensive"),
    None: (),
}  # fmt: skip
MAX_NOTE = 4000  # characters


def feedback_html(feedback: Feedback, place: int, words: Words) -> str:
    """The panel for the last answer of the column at a place."""
    chips = "".join(
        f'<button type="button" class="chip" data-act="reason" data-place="{place}" '
        f'data-value="{escape(reason)}" aria-pressed="{str(reason in feedback.reasons).lower()}">'
        f"{escape(words(reason))}</button>"
        for reason in REASONS[feedback.rating]
    )
    reasons = f'<h3>{escape(words("Why?"))}</h3><div class="chips">{chips}</div>' if chips else ""
    return (
        f'{reasons}<label class="note-label" for="note-text">{escape(words("Note"))}</label>'
        f'<textarea id="note-text" rows="5" maxlength="{MAX_NOTE}">'
        f"{escape(feedback.note).replace(chr(10), '&#10;')}</textarea>"
        f'<button type="button" class="tool text main" data-act="write-note" '
        f'data-place="{place}" data-from="note-text">{escape(words("Keep the note"))}</button>'
    )
