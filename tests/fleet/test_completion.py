"""What bash and zsh complete."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.fleet.test_cli import paragone


def completed(line: str, shell: str = "bash") -> set[str]:
    """What stands to choose from after a line, in bash; the last word is the one begun."""
    script = paragone("completion", shell).stdout
    words = line.split(" ")
    asked = (
        f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n_paragone\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    result = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_commands_and_their_beginnings_are_completed():
    assert {"up", "down", "logs", "scale", "status", "worker"} <= completed("paragone ")
    assert completed("paragone sc") == {"scale"}
    assert completed("paragone fleet re") == {"render"}


def test_flags_and_their_choices_are_completed():
    assert {"--output", "--skip-memory-check"} <= completed("paragone up --")
    assert completed("paragone fleet render x.yaml --to ") == {
        "compose",
        "kubernetes",
        "slurm",
        "systemd",
    }


def test_files_are_completed_where_a_file_is_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert completed("paragone up m") == {"mine.yaml"}


def test_zsh_takes_its_script():
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not here")
    script = paragone("completion", "zsh").stdout
    result = subprocess.run(
        ["zsh", "-f", "-c", f"{script}\nprint ${{_comps[paragone]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "_bash_complete" in result.stdout
