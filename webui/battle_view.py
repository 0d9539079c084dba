"""The battle's page as HTML; battle.js fills it."""

from __future__ import annotations

import dataclasses
import json
from html import escape

from webui.katex import Katex
from webui.language import Words

# Why an answer is better, in English: what is kept, and the key of what is shown.
REASONS = ("correct", "detailed", "concise", "well written")


def battle_html(words: Words, *, terms: str, can_fetch: bool, katex: Katex | None) -> str:
    """The body of the page.

    Args:
        words: the language.
        terms: HTML of the operator's, or nothing.
        can_fetch: whether images may be fetched by their addresses.
        katex: typesets formulas; None: their TeX is shown.
    """
    sides = "".join(
        f'<section class="side" id="side-{number}" aria-label="{escape(name)}">'
        f'<h2>{escape(name)}</h2><div class="turns"></div></section>'
        for number, name in enumerate((words("Model A"), words("Model B")))
    )
    votes = "".join(
        f'<button type="button" data-vote="{value}" disabled>{escape(name)}</button>'
        for value, name in (
            ("left", words("A is better")),
            ("right", words("B is better")),
            ("tie", words("A tie")),
            ("bothbad", words("Both are bad")),
        )
    )
    names = {
        "correct": words("correct"),
        "detailed": words("detailed"),
        "concise": words("concise"),
        "well written": words("well written"),
    }
    reasons = "".join(
        f'<button type="button" data-reason="{reason}" aria-pressed="false">'
        f"{escape(names[reason])}</button>"
        for reason in REASONS
    )
    phrases = {
        "failed": words("This side failed; its error is shown after the vote."),
        "names": words("You were comparing {left} (A) with {right} (B).", left="{0}", right="{1}"),
        "open": words("Open the chat"),
        "katex": None if katex is None else dataclasses.asdict(katex),
    }
    agreement = f'<div class="note terms">{terms}</div>' if terms else ""
    ask = escape(words("Ask both models"))
    address = f'<button type="button" id="address">{escape(words("Image by address"))}</button>'
    return (
        f'<p class="note">{escape(words("Two models answer; their names come after your vote."))}'
        f'</p>{agreement}<div class="sides">{sides}</div>'
        f'<div class="votes" role="group" aria-label="{escape(words("Vote"))}">{votes}</div>'
        f'<div class="reasons"><span class="note">{escape(words("Why?"))}</span>{reasons}'
        f'<input id="tag" maxlength="32" placeholder="{escape(words("Tag"))}" '
        f'aria-label="{escape(words("Tag"))}"><label><input type="checkbox" id="stop" checked> '
        f"{escape(words('Stop the answers when I vote'))}</label></div>"
        '<p class="verdict" id="verdict" role="status"></p>'
        '<p class="error" id="problem" role="alert"></p>'
        f'<form class="ask" id="ask"><textarea name="text" rows="2" placeholder="{ask}" '
        f'aria-label="{ask}" required></textarea><div class="row">'
        f'<label class="button">{escape(words("Add images"))}<input type="file" name="files" '
        f'accept="image/*" multiple aria-label="{escape(words("Images"))}"></label>'
        f"{address if can_fetch else ''}"
        f'<button class="primary">{escape(words("Ask both"))}</button>'
        f'<button type="button" id="again">{escape(words("New battle"))}</button>'
        f'<span class="chosen" data-remove="{escape(words("Remove the image"))}"></span>'
        "</div></form>"
        f'<script type="application/json" id="phrases">{_script(phrases)}</script>'
    )


def _script(content: object) -> str:
    """JSON that cannot end the script that it stands in."""
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
