"""Gradio is imported without what only its own developers need."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from gradio.component_meta import create_or_modify_pyi

from webui import toolkit
from webui.toolkit import gr


def test_gradio_reads_no_sources_to_write_stubs_while_it_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(path: Path, *_: object, **__: object) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(Path, "read_text", read)
    with toolkit._without_stubs():
        create_or_modify_pyi(gr.Textbox, "Textbox", [])
    with pytest.raises(AssertionError, match=r"textbox\.py was read"):
        create_or_modify_pyi(gr.Textbox, "Textbox", [])


def test_files_of_other_classes_are_found_meanwhile_and_all_afterwards() -> None:
    with toolkit._without_stubs():
        assert inspect.getfile(Path).endswith("pathlib.py")
    assert inspect.getfile(gr.Textbox).endswith("textbox.py")
