"""`scripts/make_demo_checkpoints`: runs the stages, or the exam."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import torch

# Stages of one group need nothing of each other and run side by side, the cores shared out.
_GROUPS: Final = (
    ("vocabulary",),
    ("tower", "language"),
    ("look",),
    ("align",),
    ("tune", "adapt"),
    ("write",),
)
_STAGES: Final = tuple(stage for group in _GROUPS for stage in group)
_MODELS: Final = ("full", "8bit", "4bit", "zh")
_ROOT: Final = Path(__file__).resolve().parents[2]


def main() -> int:
    options = _parser().parse_args()
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    if options.evaluate:
        from recipe.evaluate import evaluate  # noqa: PLC0415  # needs the worker's libraries

        return evaluate(
            options.checkpoints, options.models, options.scenes, options.questions, options.seed
        )
    if options.examples:
        from recipe.examples import make_examples  # noqa: PLC0415  # as above

        make_examples(options.examples)
        return 0
    if options.unpack:
        from recipe.layout import read_checkpoints  # noqa: PLC0415  # as above
        from recipe.stages import Work  # noqa: PLC0415

        read_checkpoints(options.unpack, Work(options.out / "work"))
        return 0
    if options.stage:
        for stage in options.stage:
            _run(stage, options.out, options.further)
        return 0
    return _run_all(options.out, threads, fresh=options.fresh)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_demo_checkpoints", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("var/demo-checkpoints"), metavar="DIR")
    parser.add_argument(
        "--stage", action="append", choices=_STAGES, help="run this stage only; may be repeated"
    )
    parser.add_argument(
        "--further",
        type=int,
        default=0,
        metavar="STEPS",
        help="with --stage tower, tune or adapt: go on from the stage's own weights, more gently",
    )
    parser.add_argument(
        "--unpack",
        type=Path,
        metavar="DIR",
        help="take finished checkpoints apart into what the stages leave, to go on from them",
    )
    parser.add_argument("--fresh", action="store_true", help="do not reuse finished stages")
    parser.add_argument("--threads", type=int, default=0, help="of torch; all cores unless given")
    exam = parser.add_argument_group("the held-out exam")
    exam.add_argument("--evaluate", action="store_true")
    exam.add_argument("--models", nargs="+", choices=_MODELS, default=list(_MODELS))
    exam.add_argument("--scenes", type=int, default=1000)
    exam.add_argument("--questions", type=int, default=3, help="about each scene")
    exam.add_argument("--seed", type=int, default=2024)
    exam.add_argument("--checkpoints", type=Path, default=_ROOT / "worker" / "demo", metavar="DIR")
    parser.add_argument(
        "--examples", type=Path, metavar="DIR", help="draw the example pictures of the page"
    )
    return parser


def _run(stage: str, out: Path, further: int) -> None:
    from recipe.layout import write_checkpoints  # noqa: PLC0415  # as above
    from recipe.stages import STAGES, Plan, Work  # noqa: PLC0415

    work = Work(out / "work")
    work.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if stage == "write":
        write_checkpoints(work, out)
    else:
        STAGES[stage](work, Plan(further=further))
    seconds = time.monotonic() - started
    (work.folder / f"{stage}.done").write_text(f"{seconds:.0f} s\n", encoding="utf-8")
    print(f"{stage}: done in {seconds / 60:.1f} min", flush=True)


def _run_all(out: Path, threads: int, *, fresh: bool) -> int:
    for group in _GROUPS:
        todo = [s for s in group if fresh or not (out / "work" / f"{s}.done").exists()]
        if not todo:
            continue
        print(f"== {' and '.join(todo)}", flush=True)
        share = max(1, threads // len(todo))
        common = [sys.executable, "-m", "recipe", "--out", str(out), "--threads", str(share)]
        running = [subprocess.Popen([*common, "--stage", stage]) for stage in todo]
        try:
            codes = [process.wait() for process in running]
        finally:
            for process in running:
                process.terminate()
        if any(codes):
            print(f"stopped: {' or '.join(todo)} failed; run again to go on from here")
            return 1
    print(f"the checkpoints are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
