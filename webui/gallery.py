"""Example images with questions that the demo models can answer; read from a folder.

``examples.json`` is written by the recipe that trains the demo models, so that the right answers
in it are those of the generated world and not somebody's opinion.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

FILE_NAME = "examples.json"
PROMPTS_SHOWN = 3  # beside each image


class GalleryError(Exception):
    """The folder of examples cannot be used; the message says why."""


class ExamplePrompt(BaseModel):
    """A question about an image, and what is right to answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: str
    answer_en: str | None = None
    answer_zh: str | None = None


class Example(BaseModel):
    """An image and questions about it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    image: str  # file name in the folder
    prompts: list[ExamplePrompt]


class Gallery(BaseModel):
    """What the page offers to try."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    about: str = ""  # what the demo models can do, in one line
    examples: list[Example] = []


def read_gallery(folder: Path) -> Gallery:
    """The examples of a folder; none if it has no ``examples.json``.

    Raises:
        GalleryError: the file is malformed, or names an image that is not there.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return Gallery()
    try:
        gallery = Gallery.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise GalleryError(f"{path}: {exc}") from exc
    for example in gallery.examples:
        if not (folder / example.image).is_file():
            raise GalleryError(f"{path} names {example.image}, which is not in {folder}")
    return gallery


def gallery_html(gallery: Gallery) -> str:
    """Cards of image and questions, as one line; ``data-value`` says which one a click means."""
    cards = "".join(_card(number, example) for number, example in enumerate(gallery.examples))
    about = f'<p class="about">{escape(gallery.about)}</p>' if gallery.about else ""
    return f'<div class="gallery">{about}<ul>{cards}</ul></div>'


def _card(number: int, example: Example) -> str:
    prompts = example.prompts[:PROMPTS_SHOWN]
    buttons = "".join(
        f'<button type="button" data-act="example" data-value="{number}.{index}" '
        f'title="{escape(prompt.prompt)}">'
        f"{escape(prompt.prompt)}</button>"
        for index, prompt in enumerate(prompts)
    )
    picture = (
        f'<button type="button" class="picture" data-act="example" data-value="{number}.0" '
        f'aria-label="Use example image {number + 1}">'
        f'<img src="examples/{escape(example.image)}" alt="" width="76" height="76"></button>'
    )
    return f'<li>{picture}<div class="prompts">{buttons}</div></li>'
