"""``paragone extract-projector``: the projector of an original LLaVA checkpoint alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from worker.checkpoint.output import Output
from worker.tools import command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="paragone extract-projector",
        description="Write a folder with mm_projector.bin and config.json, which loads with "
        "--model-base.",
    )
    add = parser.add_argument
    add("path", nargs="?", metavar="PATH", help="an original LLaVA checkpoint or adapter")
    add("out", nargs="?", metavar="OUT", help="the folder to write")
    add("--model-path", help="PATH, as LLaVA's script calls it")
    add("--output", help="OUT; LLaVA's script names a file here, this one the file's folder")
    command.add_output_flags(parser, shards=False)
    arguments = parser.parse_args(argv)
    path = command.one_of(parser, arguments.path, arguments.model_path, "PATH", "--model-path")
    out = command.one_of(parser, arguments.out, arguments.output, "OUT", "--output")
    if out.endswith((".bin", ".pt", ".pth")):
        parser.error(f"OUT is a folder, in which mm_projector.bin is written; {out} names a file")

    def work(output: Output) -> None:
        # On use, so that --help and wrong flags answer at once: it needs torch.
        from worker.checkpoint.folder import locate  # noqa: PLC0415
        from worker.checkpoint.projector_file import extract_projector  # noqa: PLC0415

        extract_projector(locate(path), output)

    return command.run(parser, arguments, out, work)


if __name__ == "__main__":
    sys.exit(main())
