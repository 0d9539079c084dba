"""Models' Markdown as HTML that runs nothing and fetches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from webui.katex import find_katex
from webui.markdown import rendered


def test_headings_lists_tables_and_breaks_become_html() -> None:
    html = rendered("# Title\n\none\ntwo\n\n- a\n- *b*\n\n| x | y |\n|---|---|\n| 1 | ~~2~~ |")
    for part in ("<h1>Title</h1>", "one<br", "<li>a</li>", "<em>b</em>", "<td>1</td>", "<s>2</s>"):
        assert part in html


def test_code_has_colours_where_its_language_is_known_and_is_escaped_anyway() -> None:
    known = rendered('```python\nif x < 1: print("a")\n```')
    assert '<span class="k">if</span>' in known
    assert "&lt;" in known
    assert "if x &lt; 1" in rendered("```no-such-language\nif x < 1\n```")
    assert "if x &lt; 1" in rendered("```\nif x < 1")  # while it is still written


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (r"a \(x^2\) b", r'<span class="formula">x^2</span> b'),
        (r"a $$x_1$$ b", r'<span class="formula" data-display>x_1</span> b'),
        (
            "\\[\na\n=\nb < c\n\\]\nand",
            '<div class="formula" data-display>\na\n=\nb &lt; c\n</div>',
        ),
        ("$$\na\n\nb\n$$", '<div class="formula" data-display>\na\n\nb\n</div>'),
        ("$$x$$", '<div class="formula" data-display>x</div>'),
        ("- $$x$$", '<li>\n<div class="formula" data-display>x</div>'),
        ("$$x$$ is it", '<p><span class="formula" data-display>x</span> is it</p>'),
    ],
)
def test_formulas_are_marked_with_their_tex(text: str, html: str) -> None:
    assert html in rendered(text)


@pytest.mark.parametrize("text", ["It costs $5 or $6.", "$$", "$$$$", r"\(", "`$$x$$`", r"\[x"])
def test_what_is_no_formula_stays_text(text: str) -> None:
    assert "formula" not in rendered(text)


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "![pixel](https://example.com/x.png)",
        "[click](javascript:alert(1))",
        "[click](data:text/html,<script>)",
        '[a](http://x "onmouseover=alert(1)")',
        r'\(<img src="https://example.com">\)',
        '```"><img\n<img>\n```',
        "<https://example.com/><iframe src=//example.com>",
    ],
)
def test_nothing_that_runs_or_fetches_is_written(text: str) -> None:
    html = rendered(text).lower()
    for tag in ("<img", "<script", "<iframe", "<style", "<link"):
        assert tag not in html
    assert 'href="javascript' not in html
    assert 'href="data' not in html


def test_katex_is_found_in_the_installed_gradio_and_missed_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_katex()
    assert found is not None
    assert found.script.startswith("./assets/katex-")
    assert found.scope.startswith("gradio-container")
    assert find_katex(tmp_path) is None
    assert "formulas as their TeX" in caplog.text
