"""The small buttons of the page, as HTML: page.js sends what is pressed to `webui.acts`.

``data-act`` names the act, ``data-value`` what it needs; its column is the one that it stands in.
"""

from __future__ import annotations

from html import escape

from webui.answer import Answer, Rating
from webui.conversation import MAX_COLUMNS, Conversation
from webui.language import Language, Words


def head_html(conversation: Conversation, words: Words) -> str:
    """The buttons of the page's head."""
    numbers = "".join(
        f'<button type="button" data-act="columns" data-value="{number}" '
        f'aria-pressed="{_flag(number == conversation.num_columns)}" '
        f'aria-label="{escape(words("{number} columns", number=number))}">{number}</button>'
        for number in range(1, MAX_COLUMNS + 1)
    )
    other = Language.ENGLISH if words.language is Language.CHINESE else Language.CHINESE
    other_name = {Language.ENGLISH: "English", Language.CHINESE: "中文"}[other]
    return (
        '<div class="head-tools">'
        f'<span id="num-columns" role="group" aria-label="{escape(words("Columns"))}">'
        f'<span class="label" aria-hidden="true">{escape(words("Columns"))}</span>'
        f'<span class="segments">{numbers}</span></span>'
        + _button("new", words("New chat"), text=True, extra='id="new-chat"')
        + _local("drawer", "settings", words("Settings"), text=True, extra='id="open-settings"')
        + f'<a class="tool text" href="?lang={other}" hreflang="{other}" lang="{other}" '
        f'data-do="language">{other_name}</a>'
        + _local("theme", "", words("Switch between light and dark"))
        + _local("drawer", "help", words("Keys and help"))
        + "</div>"
    )


def lane_tools_html(conversation: Conversation, place: int, words: Words) -> str:
    """The buttons in the head of a column: what concerns the column and not its answer."""
    lane = conversation.order[place]
    column = conversation.columns[lane]
    number = place + 1
    num_own = len(column.overrides.given)
    settings = words("Settings of column {number}", number=number)
    if num_own:
        settings += ": " + words("{count} of its own", count=num_own)
    is_reference = conversation.reference == lane
    last = conversation.num_columns - 1
    return (
        '<div class="lane-tools">'
        + _button("settings", settings, pressed=bool(num_own))
        + _button(
            "reference",
            words("Mark in the others what differs from column {number}", number=number),
            pressed=is_reference,
            enabled=conversation.num_columns > 1,
        )
        + _button(
            "left", words("Move column {number} to the left", number=number), enabled=place > 0
        )
        + _button(
            "right",
            words("Move column {number} to the right", number=number),
            enabled=place < last,
        )
        + _button("remove", words("Remove column {number}", number=number), enabled=last > 0)
        + "</div>"
    )


def answer_tools_html(answer: Answer | None, place: int, words: Words, *, is_last: bool) -> str:
    """The buttons below a column's answers: what concerns the last one.

    Args:
        answer: to the last turn; None if the column was not asked.
        place: of the column.
        words: the language.
        is_last: whether there is a last turn at all.
    """
    number = place + 1
    is_open = answer is not None and not answer.has_ended
    has_text = answer is not None and bool(answer.text)
    rating = None if answer is None else answer.feedback.rating
    has_note = answer is not None and bool(answer.feedback.note or answer.feedback.reasons)
    can_judge = answer is not None and answer.has_ended and has_text
    stop = words("Stop column {number}", number=number)
    retry = words("Ask column {number} again", number=number)
    go_on = words("Continue the answer of column {number}", number=number)
    copy = words("Copy the answer of column {number}", number=number)
    copied = f'data-copy="{_attribute(answer.text)}"' if answer and answer.has_ended else ""
    ratings = "".join(
        _button(name, label, pressed=rating is kind, enabled=can_judge)
        for name, kind, label in (
            ("up", Rating.UP, words("Good answer in column {number}", number=number)),
            ("down", Rating.DOWN, words("Bad answer in column {number}", number=number)),
            ("flag", Rating.FLAG, words("Flag the answer of column {number}", number=number)),
        )
    )
    note = words("Note on the answer of column {number}", number=number)
    first = _button("stop", stop) if is_open else _button("retry", retry, enabled=is_last)
    return (
        '<div class="answer-tools">'
        + first
        + _button("continue", go_on, enabled=answer is not None and answer.can_continue)
        + _local("copy", "", copy, enabled=has_text and not is_open, extra=copied)
        + '<span class="gap"></span>'
        + ratings
        + _button("note", note, pressed=has_note, enabled=can_judge)
        + '<span class="gap"></span>'
        + _button(
            "request",
            words("The exact request of column {number}", number=number),
            enabled=answer is not None,
        )
        + _button("sees", words("What the model of column {number} sees", number=number))
        + "</div>"
    )


def tabs_html(conversation: Conversation, words: Words) -> str:
    """On a phone, where one column is shown at a time: which one."""
    tabs = "".join(
        f'<button type="button" role="tab" data-tab="{place}" aria-controls="lane-{place}" '
        f'aria-selected="false">{escape(conversation.columns[lane].model or words("no model"))}'
        f"</button>"
        for place, lane in enumerate(conversation.visible)
    )
    return f'<div role="tablist" aria-label="{escape(words("Columns"))}">{tabs}</div>'


def compose_tools_html(words: Words, *, can_fetch: bool) -> str:
    """What stands beside the composer.

    Args:
        words: the language.
        can_fetch: whether images may be fetched by their addresses.
    """
    address = _local("address", "", words("Add an image by its address"))
    return (
        '<div class="compose-tools">'
        + (address if can_fetch else "")
        + _local("camera", "", words("Take a picture with the camera"))
        + "</div>"
    )


def _button(
    act: str,
    label: str,
    *,
    enabled: bool = True,
    pressed: bool | None = None,
    text: bool = False,
    extra: str = "",
) -> str:
    attributes = f'data-act="{act}" {extra}'
    return _tool(attributes, act, label, enabled=enabled, pressed=pressed, text=text)


def _local(
    do: str, value: str, label: str, *, enabled: bool = True, text: bool = False, extra: str = ""
) -> str:
    """A button that the page's own script answers, without the server."""
    attributes = f'data-do="{do}" data-value="{value}" {extra}'
    return _tool(attributes, value or do, label, enabled=enabled, pressed=None, text=text)


def _tool(
    attributes: str, icon: str, label: str, *, enabled: bool, pressed: bool | None, text: bool
) -> str:
    name = escape(label)
    state = "" if pressed is None else f' aria-pressed="{_flag(pressed)}"'
    off = "" if enabled else " disabled"
    if text:
        return f'<button type="button" class="tool text" {attributes}{state}{off}>{name}</button>'
    return (
        f'<button type="button" class="tool icon-{icon}" {attributes} aria-label="{name}" '
        f'title="{name}"{state}{off}></button>'
    )


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _attribute(text: str) -> str:
    return escape(text).replace("\n", "&#10;")
