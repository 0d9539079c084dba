"""Every command of the documents is run by a test, or the line above it says why it is not."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.documents import ROOT, Block, blocks_in, environment, run

DOCUMENTS = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
# Documents whose commands have tests of their own.
ELSEWHERE = {"README.md", "docs/clients.md"}
# Words that begin a line only where somebody is to type it.
_TYPED = re.compile(
    r"^(\$ |(paragone|python3?|pip|docker|curl|git|sudo|sbatch|systemctl|kubectl) |\./scripts/)",
    re.MULTILINE,
)


def to_run(path: str) -> list[Block]:
    return [block for block in blocks_in(path) if block.is_command and block.why_not is None]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_what_is_to_be_typed_stands_in_a_block_that_says_so(path):
    others = [block for block in blocks_in(path) if not block.is_command]
    assert [block.code for block in others if _TYPED.search(block.code)] == []


def test_documents_with_commands_are_those_that_have_tests():
    assert {path for path in DOCUMENTS if to_run(path)} == {
        "docs/demo-checkpoints.md",
        "docs/fleets.md",
        *ELSEWHERE,
    }


def of_fakes(block: Block, path: object) -> Block:
    """The demo's fleet file and workers, as the fakes have them."""
    code = block.code.replace("configs/demo.yaml", str(path))
    return Block("bash", code.replace("demo-llava-zh", "w1").replace("demo-llava", "w0"))


def test_a_fleet_is_started_commanded_and_stopped_as_documented(
    write_fleet, tmp_path_factory, monkeypatch
):
    folder = tmp_path_factory.mktemp("state")  # a short path, as a socket lies in it
    folder.chmod(0o700)
    monkeypatch.setenv("PARAGONE_STATE_DIR", str(folder))
    path = write_fleet(["--say", "hello"], [])
    start, command = (of_fakes(block, path) for block in to_run("docs/fleets.md")[:2])
    assert start.code.startswith("paragone up ")
    with subprocess.Popen(
        ["bash", "-c", start.code],
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as up:
        assert up.stdout is not None
        lines = iter(up.stdout)
        try:
            assert any("Paragone is ready" in line for line in lines)
            commanded = run(command)
            assert commanded.returncode == 0, commanded.stderr
            assert up.wait(60) == 0
        finally:
            up.kill()
    *shown, hello, scaled, applied, stopped = commanded.stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["MODEL", "w0", "w1"]
    assert hello == "hello"
    assert scaled.startswith("started: w1#2; left alone: ")
    assert applied.startswith("stopped: w1#2; left alone: ")
    assert stopped == f"{path} has stopped"


def test_the_other_commands_of_fleets_print_what_is_said_of_them():
    commands, rendered, completion = to_run("docs/fleets.md")[2:]
    started = re.findall(r"python -m (\w+)", run(commands).stdout)
    assert started == ["controller", *["worker"] * 4, "webui"]
    assert run(rendered).stdout.count("kind: Deployment") == 6
    completed = run(Block("bash", completion.code + "complete -p paragone\n"))
    assert "paragone" in completed.stdout, completed.stderr


def test_the_world_of_the_demo_is_drawn_as_documented():
    (block,) = to_run("docs/demo-checkpoints.md")
    paths = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    printed = run(block, {"PYTHONPATH": paths})
    assert printed.returncode == 0, printed.stderr
    assert len(printed.stdout.split()) > 3
