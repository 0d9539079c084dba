"""A column's side of a conversation as the messages of a Gradio Chatbot."""

from __future__ import annotations

from html import escape
from typing import Any

from webui.conversation import Answer, AnswerState, Conversation, Turn

# Parts keep text exactly as it is; a plain string would lose its indentation.
Message = dict[str, Any]
_TYPING = '<span class="typing" role="status" aria-label="waiting for the first token"></span>'


def chat_messages(conversation: Conversation, lane: int) -> list[Message]:
    """What a column shows: each turn, then its answer or why there is none."""
    messages: list[Message] = []
    for turn in conversation.turns:
        messages.append({"role": "user", "content": _question(turn)})
        answer = turn.answers.get(lane)
        if answer is None:
            parts = [_note("not asked in this column")]
        else:
            parts = _answer(answer, is_other_model=answer.model != conversation.columns[lane].model)
        messages.append({"role": "assistant", "content": parts})
    return messages


def _question(turn: Turn) -> list[Message]:
    parts: list[Message] = [
        {
            "type": "file",
            "file": {
                "path": str(image.path),
                "mime_type": image.media_type,
                "meta": {"_type": "gradio.FileData"},
            },
            "alt_text": f"image {number} of the question",
        }
        for number, image in enumerate(turn.images, 1)
    ]
    if turn.text:
        parts.append({"type": "text", "text": turn.text})
    return parts


def _answer(answer: Answer, *, is_other_model: bool) -> list[Message]:
    parts: list[Message] = []
    if answer.text:
        parts.append({"type": "text", "text": answer.text})
    elif answer.state in (AnswerState.WAITING, AnswerState.STREAMING):
        parts.append({"type": "text", "text": _TYPING})
    if answer.state is AnswerState.FAILED:
        parts.append(_error(answer.error or "It failed without saying why."))
    elif answer.state is AnswerState.STOPPED:
        parts.append(_note("stopped"))
    elif answer.state is AnswerState.CUT:
        parts.append(_note("cut: the page's server ended while this was written"))
    elif answer.state is AnswerState.DONE and not answer.text:
        parts.append(_note("an empty answer"))
    if is_other_model:
        parts.append(_note(f"answered by {answer.model}"))
    return parts


def _note(text: str) -> Message:
    return {"type": "text", "text": f'<div class="note">{escape(text)}</div>'}


def _error(message: str) -> Message:
    return {"type": "text", "text": f'<div class="error" role="alert">{escape(message)}</div>'}
