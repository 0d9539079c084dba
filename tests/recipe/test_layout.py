from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from recipe.layout import BASE, FULL, LORA, TOWER, read_checkpoints, write_checkpoints
from recipe.stages import Work

DEMO = Path(__file__).resolve().parents[2] / "worker" / "demo"


def test_the_shipped_checkpoints_taken_apart_and_written_again_are_the_same_files(
    tmp_path: Path,
) -> None:
    work = Work(tmp_path / "work")
    read_checkpoints(DEMO, work)
    write_checkpoints(work, tmp_path)
    for folder in (BASE, TOWER, FULL, LORA):
        names = sorted(file.name for file in (DEMO / folder).iterdir())
        assert names == sorted(file.name for file in (tmp_path / folder).iterdir())
        for name in names:
            assert (tmp_path / folder / name).read_bytes() == (DEMO / folder / name).read_bytes()
