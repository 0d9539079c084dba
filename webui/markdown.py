"""A model's Markdown as HTML, for the views that are not Gradio's; formulas are left to KaTeX.

Models may write anything: their HTML is escaped, their pictures become links, and links have plain
schemes, so that nothing is run and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

# Its stubs are a package of their own, for four names.
from pygments import highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]

# Those of the Compare page: opening, closing, whether it is a line of its own.
FORMULAS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False))
_MAX_HIGHLIGHTED = 20_000  # characters of one block of code
_KEPT = 128  # texts that were rendered last: tabs of one battle, and its unchanged side

_formatter = HtmlFormatter(nowrap=True)


@lru_cache(maxsize=_KEPT)
def rendered(text: str) -> str:
    """The HTML of a text; formulas are ``span.formula`` with their TeX as text.

    Some milliseconds for ten thousand characters: call it off the event loop.
    """
    return str(_markdown().render(text))


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True, "highlight": _highlighted})
    markdown.enable(["table", "strikethrough"])
    markdown.inline.ruler.before("escape", "formula", _inline_formula)
    markdown.block.ruler.before(
        "fence", "formula", _block_formula, {"alt": ["paragraph", "blockquote", "list"]}
    )
    markdown.add_render_rule("formula", _formula_html)
    markdown.add_render_rule("image", _image_html)
    markdown.add_render_rule("link_open", _link_html)
    return markdown


def _highlighted(code: str, language: str, _attributes: str) -> str:
    """Code in colours; empty where there are none, which leaves it escaped."""
    if not language or len(code) > _MAX_HIGHLIGHTED:
        return ""
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return ""
    return str(highlight(code, lexer, _formatter))


def _inline_formula(state: StateInline, silent: bool) -> bool:
    for opening, closing, is_display in FORMULAS:
        if state.src.startswith(opening, state.pos):
            begin = state.pos + len(opening)
            end = state.src.find(closing, begin, state.posMax)
            if end < 0 or not state.src[begin:end].strip():
                continue
            if not silent:
                token = state.push("formula", "", 0)
                token.content, token.meta = state.src[begin:end], {"display": is_display}
            state.pos = end + len(closing)
            return True
    return False


def _block_formula(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """A formula that begins a line and ends one, whatever its lines look like in between."""
    begin = state.bMarks[first] + state.tShift[first]
    for opening, closing, is_display in FORMULAS:
        if not is_display or not state.src.startswith(opening, begin):
            continue
        begin += len(opening)
        for line in range(first, last):
            # On its first line the closing mark may not be the opening one.
            end = state.src.rfind(closing, max(begin, state.bMarks[line]), state.eMarks[line])
            if end < 0:
                continue
            if not state.src[begin:end].strip():
                return False
            if state.src[end + len(closing) : state.eMarks[line]].strip():
                return False  # text goes on behind it: a formula in a paragraph
            if not silent:
                token = state.push("formula", "", 0)
                token.content, token.meta = state.src[begin:end], {"display": True}
                token.block = True
                state.line = line + 1
            return True
        return False
    return False


# The renderer calls rules so; not all of it matters to each.
def _formula_html(_self: RendererHTML, tokens: Sequence[Token], at: int, *_: object) -> str:
    token = tokens[at]
    display = " data-display" if token.meta["display"] else ""
    tag = "div" if token.block else "span"
    return f'<{tag} class="formula"{display}>{escape(token.content)}</{tag}>'


def _image_html(_self: RendererHTML, tokens: Sequence[Token], at: int, *_: object) -> str:
    address = escape(str(tokens[at].attrs.get("src", "")))
    name = escape(tokens[at].content) or address
    return f'<a href="{address}" target="_blank" rel="noopener noreferrer">{name}</a>'


def _link_html(
    self: RendererHTML,
    tokens: Sequence[Token],
    at: int,
    options: OptionsDict,
    env: EnvType,
) -> str:
    tokens[at].attrSet("target", "_blank")
    tokens[at].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, at, options, env)
