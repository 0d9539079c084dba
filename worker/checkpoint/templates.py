"""Chat templates: ours by name, a file, or the checkpoint's own; all Jinja."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker.checkpoint.errors import TemplateError

_SUFFIX = ".jinja"


@cache
def template_names() -> tuple[str, ...]:
    """The templates that come with Paragone; LLaVA's names for its conversations."""
    folder = resources.files(__package__) / "chat_templates"
    return tuple(
        sorted(
            entry.name.removesuffix(_SUFFIX)
            for entry in folder.iterdir()
            if entry.name.endswith(_SUFFIX)
        )
    )


def read_template(name_or_file: str) -> str:
    """The Jinja source of one of our templates, or of a file.

    Raises:
        TemplateError: there is no such name or file, or it is not valid Jinja.
    """
    if name_or_file in template_names():
        folder = resources.files(__package__) / "chat_templates"
        return (folder / f"{name_or_file}{_SUFFIX}").read_text(encoding="utf-8")
    file = Path(name_or_file).expanduser()
    if not file.is_file():
        raise TemplateError(
            f"no chat template {name_or_file!r}: neither a file nor one of "
            f"{', '.join(template_names())}"
        )
    source = file.read_text(encoding="utf-8")
    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    except TemplateSyntaxError as error:
        raise TemplateError(f"{file}, line {error.lineno}: {error.message}") from error
    return source
