"""A LLaVA template, whose messages are text, for messages of parts as transformers passes them."""

from __future__ import annotations

import json
from importlib import resources

from worker.checkpoint.prompt import IMAGE_MARKER
from worker.checkpoint.templates import ChatTemplate


def export_template(template: ChatTemplate, *, wraps_in_start_end: bool) -> str:
    """Jinja that renders what `conversation.render_conversation` does, ``<image>`` for an image.

    Args:
        template: one of text messages.
        wraps_in_start_end: whether ``<im_start>`` and ``<im_end>`` go around an image.
    """
    image = f"<im_start>{IMAGE_MARKER}<im_end>" if wraps_in_start_end else IMAGE_MARKER
    source = resources.files(__package__) / "flatten.jinja"
    flatten = (
        source.read_text(encoding="utf-8")
        .replace("IMAGE_TOKEN", json.dumps(image))
        .replace("IMAGES_FIRST", "true" if template.images_first else "false")
    )
    return flatten.rstrip("\n") + template.source
