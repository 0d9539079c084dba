"""A column's side of a conversation as the messages of a Gradio Chatbot.

Gradio cleans the HTML in these messages, since models may write some: only tags and attributes that
it lets pass are used, and page.js finds ours by their class.
"""

from __future__ import annotations

from html import escape
from typing import Any

from webui.answer import Answer, AnswerState
from webui.conversation import Conversation, Turn, UploadedImage
from webui.difference import Differences, difference_html
from webui.language import ENGLISH, Words

# Parts keep text exactly as it is; a plain string would lose its indentation.
Message = dict[str, Any]


def chat_messages(
    conversation: Conversation,
    lane: int,
    words: Words = ENGLISH,
    differences: Differences | None = None,
) -> list[Message]:
    """What a column shows: each turn, then its answer or why there is none.

    Args:
        conversation: whose reference column, if it has one, the others are marked against.
        lane: the column's.
        words: the language.
        differences: compares answers; needed where there is a reference.
    """
    messages: list[Message] = []
    reference = conversation.reference
    last = len(conversation.turns) - 1
    for number, turn in enumerate(conversation.turns):
        messages.append({"role": "user", "content": _question(turn, number, words)})
        answer = turn.answers.get(lane)
        if answer is None:
            parts = [_note(words("not asked in this column"))]
        else:
            other = None if reference in (None, lane) else turn.answers.get(reference)
            marked = None
            if differences is not None and other is not None and other.text and answer.text:
                marked = difference_html(differences.between(answer, other))
            parts = _answer(answer, marked, words, is_last=number == last)
            if answer.model != conversation.columns[lane].model:
                parts.append(_note(words("answered by {model}", model=answer.model)))
        messages.append({"role": "assistant", "content": parts})
    return messages


def _question(turn: Turn, number: int, words: Words) -> list[Message]:
    parts: list[Message] = []
    if turn.images:
        pictures = "".join(_picture(image, at, words) for at, image in enumerate(turn.images, 1))
        parts.append({"type": "text", "text": f'<div class="pictures">{pictures}</div>'})
    if turn.text:
        parts.append({"type": "text", "text": turn.text})
    edit = words("Edit and ask again")
    parts.append(
        {
            "type": "text",
            "text": f'<button class="edit-turn" value="{number}" title="{edit}">{edit}</button>',
        }
    )
    return parts


def _picture(image: UploadedImage, number: int, words: Words) -> str:
    alt = words("image {number} of the question", number=number)
    if image.name:
        alt += f": {image.name}"
    # Relative, so that the page may lie under any path of a proxy.
    return f'<img class="picture" src="images/{image.digest}/small" alt="{escape(alt)}">'


def _answer(answer: Answer, marked: str | None, words: Words, *, is_last: bool) -> list[Message]:
    parts: list[Message] = []
    if answer.text:
        parts.append({"type": "text", "text": marked or answer.text})
    if answer.state is AnswerState.WAITING:
        parts.append({"type": "text", "text": '<span class="typing"></span>'})
    if answer.state is AnswerState.FAILED:
        message = answer.error or words("It failed without saying why.")
        again = words("Ask again") if is_last else ""
        parts.append(_error(message, again))
    elif answer.state is AnswerState.STOPPED:
        parts.append(_note(words("stopped")))
    elif answer.state is AnswerState.CUT:
        parts.append(_note(words("cut: the page's server ended while this was written")))
    elif answer.state is AnswerState.DONE and not answer.text:
        parts.append(_note(words("an empty answer")))
    return parts


def _note(text: str) -> Message:
    return {"type": "text", "text": f'<div class="note">{escape(text)}</div>'}


def _error(message: str, again: str) -> Message:
    button = f'<button class="ask-again">{escape(again)}</button>' if again else ""
    text = escape(message).replace("\n", "<br>")
    return {"type": "text", "text": f'<div class="error">{text}{button}</div>'}
