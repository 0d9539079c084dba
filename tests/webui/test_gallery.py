"""Example images and questions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from webui.gallery import Gallery, GalleryError, gallery_html, read_gallery


def test_a_folder_without_the_file_has_no_examples(tmp_path: Path) -> None:
    assert read_gallery(tmp_path) == Gallery()
    assert read_gallery(tmp_path / "absent") == Gallery()


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "examples.json").write_text(
        '{"examples": [{"image": "gone.png", "prompts": [{"prompt": "What?"}]}]}'
    )
    with pytest.raises(GalleryError, match=r"gone\.png"):
        read_gallery(tmp_path)


def test_a_malformed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "examples.json").write_text('{"examples": 7}')
    with pytest.raises(GalleryError, match=r"examples\.json"):
        read_gallery(tmp_path)


def test_each_question_is_a_button_and_text_is_escaped() -> None:
    gallery = Gallery.model_validate(
        {
            "about": "1 < 2",
            "examples": [
                {"image": "a.png", "prompts": [{"prompt": "A <b>?"}, {"prompt": "B?"}]},
                {"image": "b.png", "prompts": [{"prompt": "C?"}]},
            ],
        }
    )
    html = gallery_html(gallery)
    assert "1 &lt; 2" in html
    assert re.search(r'<button [^>]*data-value="0\.0"[^>]*>A &lt;b&gt;\?</button>', html)
    assert re.search(r'<button [^>]*data-value="1\.0"[^>]*>C\?</button>', html)
    assert html.count("<img ") == 2
    assert "\n" not in html
