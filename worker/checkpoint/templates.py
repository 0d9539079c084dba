"""Chat templates: ours by name, a file, or the checkpoint's own; all Jinja.

A template may say two things about itself, by assigning constants at its top level::

    {%- set stop_strings = ["###"] -%}   what ends an answer besides the model's end tokens
    {%- set images_first = false -%}     the first question's images stay where they were written
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from controller.protocol.errors import BadRequestError
from worker.checkpoint.errors import TemplateError

_SUFFIX = ".jinja"

# Names that LLaVA's code has for a second time.
_ALIASES = {
    "default": "v0",
    "v1": "vicuna_v1",
    "v0_plain": "plain",
    "mistral_direct": "chatml_direct",
    "llava_v0_mmtag": "v0_mmtag",
    "llava_v1_mmtag": "v1_mmtag",
    "llava_mistral_instruct": "mistral_instruct",
}


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template and what it says about itself.

    Attributes:
        source: Jinja.
        stop_strings: what ends an answer, besides the model's end tokens; never part of it.
        images_first: whether the first question's images go before its text.
        is_ours: whether it came with Paragone; those take messages whose content is text alone.
        origin: where it comes from: its name, or the file or folder that holds it.
    """

    source: str
    stop_strings: tuple[str, ...] = ()
    images_first: bool = True
    is_ours: bool = False
    origin: str = ""


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


@cache
def named_template(name: str) -> ChatTemplate | None:
    """The template of ours that has this name, or is also called so; None where none is."""
    name = _ALIASES.get(name, name)
    if name not in template_names():
        return None
    file = resources.files(__package__) / "chat_templates" / f"{name}{_SUFFIX}"
    return parse_template(file.read_text(encoding="utf-8"), origin=name, is_ours=True)


def requested_template(name: str | None) -> ChatTemplate | None:
    """The template that a request asks for: by its name alone, never from a file.

    Raises:
        BadRequestError: there is none of that name.
    """
    if name is None:
        return None
    template = named_template(name)
    if template is None:
        raise BadRequestError(
            f"there is no chat template {name!r}; there are {', '.join(template_names())}",
            param="chat_template",
        )
    return template


def read_template(name_or_file: str) -> ChatTemplate:
    """One of our templates, or a file's, as an operator names it.

    Raises:
        TemplateError: there is no such name or file, or it is not valid Jinja.
    """
    named = named_template(name_or_file)
    if named is not None:
        return named
    file = Path(name_or_file).expanduser()
    if not file.is_file():
        raise TemplateError(
            f"no chat template {name_or_file!r}: neither a file nor one of "
            f"{', '.join(template_names())}"
        )
    return parse_template(file.read_text(encoding="utf-8"), origin=str(file))


def parse_template(source: str, *, origin: str, is_ours: bool = False) -> ChatTemplate:
    """A template with what it says about itself; nothing of it is run.

    Args:
        source: Jinja.
        origin: where it comes from, for the message.
        is_ours: see `ChatTemplate`.

    Raises:
        TemplateError: it is not valid Jinja, or says nonsense about itself.
    """
    try:
        tree = _JINJA.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateError(f"{origin}, line {error.lineno}: {error.message}") from error
    said = {
        statement.target.name: statement.node
        for statement in tree.body
        if isinstance(statement, nodes.Assign) and isinstance(statement.target, nodes.Name)
    }
    stops = _constant(said.get("stop_strings"), [], origin)
    first = _constant(said.get("images_first"), True, origin)
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise TemplateError(f"{origin}: stop_strings must be a list of strings, not {stops!r}")
    return ChatTemplate(source, tuple(stops), bool(first), is_ours, origin)


def _constant(node: nodes.Node | None, default: object, origin: str) -> object:
    if node is None:
        return default
    try:
        if not isinstance(node, nodes.Expr):
            raise nodes.Impossible
        return node.as_const()
    except nodes.Impossible as error:
        raise TemplateError(
            f"{origin}, line {node.lineno}: stop_strings and images_first must be constants"
        ) from error


class _Generation(Extension):
    """The one statement that transformers adds to Jinja; it marks a block and changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - so declared by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The block's own statements."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_JINJA = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", _Generation])
