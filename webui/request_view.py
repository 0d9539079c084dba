"""The exact request behind an answer, and how to send it again without this page."""

from __future__ import annotations

import json
import shlex
from html import escape

from webui.answer import Answer
from webui.conversation import UploadedImage
from webui.language import Words
from webui.requests import Request, reference, with_images

KEY_VARIABLE = "PARAGONE_API_KEY"


def request_html(
    answer: Answer,
    images: list[UploadedImage],
    *,
    base_url: str,
    has_key: bool,
    prompt: str | None,
    prompt_problem: str | None,
    words: Words,
) -> str:
    """The panel.

    Args:
        answer: whose request it is.
        images: those that may be in it.
        base_url: of the controller.
        has_key: whether the controller wants a key; it is never shown.
        prompt: as the worker renders it; None if that is not known.
        prompt_problem: why it is not known.
        words: the language.
    """
    if answer.request is None:
        return f'<p class="empty">{escape(words("Not sent yet."))}</p>'
    names = file_names(images)
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
        for label, value in _facts(answer, words)
    )
    body = json.dumps(with_images(answer.request, names), ensure_ascii=False, indent=2)
    curl = as_curl(answer.request, names, base_url=base_url, has_key=has_key)
    python = as_python(answer.request, names, base_url=base_url, has_key=has_key)
    used = [image for image in images if reference(image) in json.dumps(answer.request)]
    files = "".join(
        f'<li><a href="images/{image.digest}" download="{escape(names[reference(image)])}">'
        f"{escape(names[reference(image)])}</a></li>"
        for image in used
    )
    files_html = (
        f'<h3>{escape(words("Images"))}</h3><ul class="files">{files}</ul>' if files else ""
    )
    shown_prompt = (
        f'<p class="empty">{escape(prompt_problem or "")}</p>' if prompt is None else _code(prompt)
    )
    return (
        f'<dl class="facts">{rows}</dl>'
        + _section(words("Prompt as the model gets it"), shown_prompt, prompt or "", words)
        + _section(words("As curl"), _code(curl), curl, words)
        + _section(words("As Python"), _code(python), python, words)
        + _section(words("Body"), _code(body), body, words)
        + files_html
    )


def file_names(images: list[UploadedImage]) -> dict[str, str]:
    """What each image is called in a command, by what stands for it in a request."""
    names: dict[str, str] = {}
    for number, image in enumerate(images, 1):
        ending = image.media_type.rpartition("/")[2].replace("jpeg", "jpg")
        names[reference(image)] = f"image-{number}.{ending}"
    return names


def as_curl(request: Request, names: dict[str, str], *, base_url: str, has_key: bool) -> str:
    """A shell command that sends the same body; images are read from files beside it."""
    text = json.dumps(request, ensure_ascii=False, indent=2)
    # In an unquoted here-document the shell expands these three; only our own $(...) should be.
    text = text.replace("\\", "\\\\").replace("$", "\\$").replace("`", "\\`")
    for mark, name in names.items():
        media_type = _media_type(name)
        command = f"$(base64 < {shlex.quote(name)} | tr -d '\\n')"
        text = text.replace(mark, f"data:{media_type};base64,{command}")
    key = f' \\\n  -H "Authorization: Bearer ${KEY_VARIABLE}"' if has_key else ""
    return (
        f"curl --no-buffer {shlex.quote(base_url + '/v1/chat/completions')} \\\n"
        f"  -H 'Content-Type: application/json'{key} \\\n"
        f"  --data-binary @- <<JSON\n{text}\nJSON"
    )


def as_python(request: Request, names: dict[str, str], *, base_url: str, has_key: bool) -> str:
    """A program that asks the same through OpenAI's package; images are read from files."""
    known = ("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens",
             "seed")  # fmt: skip
    used = {mark: name for mark, name in names.items() if mark in json.dumps(request)}
    arguments = {key: request[key] for key in known if key in request}
    extra = {key: value for key, value in request.items() if key not in known}
    if extra:
        arguments["extra_body"] = extra
    lines = "".join(f"    {key}={_literal(value)},\n" for key, value in arguments.items())
    for mark, name in used.items():
        lines = lines.replace(repr(mark), f'data_uri("{name}", "{_media_type(name)}")')
    key = f'os.environ["{KEY_VARIABLE}"]' if has_key else '"none"'
    imports = (["import base64"] if used else []) + (["import os"] if has_key else [])
    imports += ["from pathlib import Path"] if used else []
    helper = (
        "def data_uri(name, media_type):\n"
        "    data = base64.b64encode(Path(name).read_bytes()).decode()\n"
        '    return f"data:{media_type};base64,{data}"\n\n\n'
        if used
        else ""
    )
    return (
        "".join(f"{line}\n" for line in imports)
        + ("\n" if imports else "")
        + "from openai import OpenAI\n\n"
        + ("\n" if helper else "")
        + helper
        + f'client = OpenAI(base_url="{base_url}/v1", api_key={key})\n'
        f"stream = client.chat.completions.create(\n{lines})\n"
        "for chunk in stream:\n"
        "    for choice in chunk.choices:\n"
        '        print(choice.delta.content or "", end="", flush=True)\n'
    )


def _media_type(name: str) -> str:
    return "image/" + name.rpartition(".")[2].replace("jpg", "jpeg")


def _literal(value: object) -> str:
    text = repr(value)
    if len(text) < 80 or not isinstance(value, list):
        return text
    items = "".join(f"        {item!r},\n" for item in value)
    return f"[\n{items}    ]"


def _facts(answer: Answer, words: Words) -> list[tuple[str, str]]:
    card = None if answer.asked is None else answer.asked.card
    sampling = answer.sampling
    facts: list[tuple[str, object]] = [
        (words("model"), answer.model),
        (words("revision"), card and card.revision),
        (words("quantisation"), card and card.quantisation.value),
        (words("computes in"), card and card.dtype and card.dtype.removeprefix("torch.")),
        (words("adapter"), card and card.adapter),
        (words("base"), card and card.base),
        (words("engine"), card and card.engine),
        (words("worker"), answer.worker_id),
        (words("seed"), _seed(answer, words)),
        (words("temperature"), f"{sampling.temperature:g}"),
        (words("attempt"), answer.attempt + 1 if answer.attempt else None),
    ]
    return [(label, str(value)) for label, value in facts if value is not None]


def _seed(answer: Answer, words: Words) -> str:
    if answer.sampling.seed is not None:
        return str(answer.sampling.seed)
    return words("none: greedy decoding draws nothing")


def _section(title: str, content: str, copied: str, words: Words) -> str:
    button = (
        f'<button type="button" class="tool text" data-do="copy" data-value="" '
        f'data-copy="{_line(copied)}">{escape(words("Copy"))}</button>'
        if copied
        else ""
    )
    return f"<section><header><h3>{escape(title)}</h3>{button}</header>{content}</section>"


def _code(text: str) -> str:
    return f'<div class="code" tabindex="0">{_line(text)}</div>'


def _line(text: str) -> str:
    # One line of HTML: an empty one would end the block in Markdown.
    return escape(text).replace("\n", "&#10;")
