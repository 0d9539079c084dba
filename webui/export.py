"""A conversation as a file: JSON, Markdown, or one HTML document with its images in it.

What people and models wrote is escaped or quoted, and the HTML forbids itself to run or to fetch
anything: it may be opened anywhere.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from webui.answer import Answer
from webui.conversation import Conversation, Turn, UploadedImage

VERSION = 1  # of the JSON; grows when a field changes its meaning
_IMAGE_TYPES = frozenset(
    {"image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"}
)
_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:0 auto;padding:24px}
h1{font-size:22px}h2{font-size:16px;margin-top:32px;border-top:1px solid #8884;padding-top:16px}
.text{white-space:pre-wrap;overflow-wrap:anywhere}
.answers{display:grid;margin-top:12px;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));gap:12px}
article{border:1px solid #8886;border-radius:6px;padding:12px}
h3{margin:0 0 8px;font-size:14px}
img{max-width:320px;max-height:320px;margin:0 8px 8px 0;border-radius:4px}
.facts,.said,footer{font-size:12px;opacity:.75}.said{white-space:pre-wrap;overflow-wrap:anywhere}
article p:last-child{margin-bottom:0}footer{margin-top:24px}.error{color:#b91c1c}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def as_json(conversation: Conversation) -> str:
    """Everything that is kept of it, images as ``data:`` addresses. Blocks: reads the images."""
    content = {
        "paragone_conversation": VERSION,
        "id": conversation.id,
        "kind": conversation.kind.value,
        "title": title_of(conversation),
        "created_at": _time(conversation.created_at),
        "branched_from": conversation.branched_from,
        "columns": [
            {"lane": lane, "model": conversation.columns[lane].model}
            for lane in conversation.visible
        ],
        "turns": [
            {
                "text": turn.text,
                "created_at": _time(turn.created_at),
                "images": [
                    {
                        "name": image.name,
                        "media_type": image.media_type,
                        "width": image.width,
                        "height": image.height,
                        "sha256": image.digest,
                        "data": _data_uri(image),
                    }
                    for image in turn.images
                ],
                "answers": [_answer(lane, each) for lane, each in _in_order(conversation, turn)],
            }
            for turn in conversation.turns
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def as_markdown(conversation: Conversation) -> str:
    """For reading and quoting: texts and figures, images by name."""
    lines = [f"# {_one_line(title_of(conversation))}", "", _date(conversation.created_at), ""]
    for number, turn in enumerate(conversation.turns, start=1):
        lines += [f"## Question {number}", "", *_quoted(turn.text), ""]
        lines += [f"- {_one_line(_caption(image))}" for image in turn.images]
        for _, answer in _in_order(conversation, turn):
            lines += ["", f"### {_one_line(answer.model)}", "", *_quoted(answer.text)]
            if answer.error:
                lines += ["", f"**Error:** {_one_line(answer.error)}"]
            lines += ["", f"*{_one_line(_facts(answer))}*", ""]
            lines += [f"- {label}: {_one_line(text)}" for label, text in _said(answer)]
        lines.append("")
    return "\n".join(lines)


def as_html(conversation: Conversation) -> str:
    """One document for reading, with the images in it. Blocks: reads the images."""
    title = escape(title_of(conversation))
    turns = "".join(
        f"<section><h2>Question {number}</h2>{_images_html(turn.images)}"
        f'<div class="text">{escape(turn.text)}</div><div class="answers">'
        + "".join(_answer_html(answer) for _, answer in _in_order(conversation, turn))
        + "</div></section>"
        for number, turn in enumerate(conversation.turns, start=1)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="content-security-policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f'<h1>{title}</h1><p class="facts">{_date(conversation.created_at)}</p>{turns}'
        "<footer>Exported by Paragone</footer></body></html>\n"
    )


def title_of(conversation: Conversation) -> str:
    """A person's own title, or the beginning of the first question."""
    first = conversation.turns[0].text if conversation.turns else ""
    return conversation.title or _one_line(first)[:80] or "Empty chat"


def _in_order(conversation: Conversation, turn: Turn) -> Iterable[tuple[int, Answer]]:
    """A turn's answers, by place and not by lane."""
    return ((lane, turn.answers[lane]) for lane in conversation.order if lane in turn.answers)


def _answer(lane: int, answer: Answer) -> Mapping[str, Any]:
    return {
        "lane": lane,
        "model": answer.model,
        "text": answer.text,
        "state": answer.state.value,
        "finish_reason": answer.finish_reason and answer.finish_reason.value,
        "error": answer.error,
        "error_code": answer.error_code,
        "attempt": answer.attempt,
        "created_at": _time(answer.created_at),
        "worker_id": answer.worker_id,
        "sampling": answer.sampling.model_dump(mode="json"),
        "request": answer.request,
        "model_card": answer.asked and answer.asked.card.model_dump(mode="json"),
        "usage": answer.usage and answer.usage.model_dump(mode="json"),
        "metrics": answer.metrics and answer.metrics.model_dump(mode="json"),
        "feedback": {
            "rating": answer.feedback.rating and answer.feedback.rating.value,
            "reasons": list(answer.feedback.reasons),
            "note": answer.feedback.note,
        },
    }


def _answer_html(answer: Answer) -> str:
    error = f'<p class="error">{escape(answer.error)}</p>' if answer.error else ""
    said = "".join(f'<p class="said">{label}: {escape(text)}</p>' for label, text in _said(answer))
    return (
        f'<article><h3>{escape(answer.model)}</h3><div class="text">{escape(answer.text)}</div>'
        f'{error}<p class="facts">{escape(_facts(answer))}</p>{said}</article>'
    )


def _facts(answer: Answer) -> str:
    facts = [answer.finish_reason.value if answer.finish_reason else answer.state.value]
    if answer.usage is not None:
        facts.append(f"{answer.usage.completion_tokens} tokens")
    if answer.metrics is not None and answer.metrics.tokens_per_second is not None:
        facts.append(f"{answer.metrics.tokens_per_second:.1f} tokens/s")
    facts.append(f"temperature {answer.sampling.temperature:g}")
    if answer.sampling.seed is not None:
        facts.append(f"seed {answer.sampling.seed}")
    if answer.feedback.rating is not None:
        reasons = "".join(f" ({each})" for each in answer.feedback.reasons)
        facts.append(f"rated {answer.feedback.rating.value}{reasons}")
    return ", ".join(facts)


def _said(answer: Answer) -> list[tuple[str, str]]:
    """What people wrote that belongs to an answer, besides the question."""
    texts = [
        ("System prompt", answer.sampling.system_prompt.strip()),
        ("Note", answer.feedback.note),
    ]
    return [(label, text) for label, text in texts if text]


def _images_html(images: Iterable[UploadedImage]) -> str:
    tags = []
    for image in images:
        uri, caption = _data_uri(image), escape(_caption(image))
        gone = f"<p>{caption}: no longer kept</p>"
        tags.append(gone if uri is None else f'<img src="{escape(uri)}" alt="{caption}">')
    return "".join(tags)


def _caption(image: UploadedImage) -> str:
    return f"{image.name or 'image'}, {image.width} × {image.height}"


def _data_uri(image: UploadedImage) -> str | None:
    """None if the file is gone, or of a kind that is no plain picture."""
    if image.media_type not in _IMAGE_TYPES:
        return None
    try:
        content = image.path.read_bytes()
    except FileNotFoundError:
        return None
    return f"data:{image.media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _quoted(text: str) -> list[str]:
    """As a block quote, so that headings in an answer stay inside it."""
    return [f"> {line}".rstrip() for line in text.splitlines()] or ["> (no text)"]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
