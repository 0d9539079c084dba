"""``paragone make-delta``: what a model differs by from the base that it was trained from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from worker.checkpoint.output import Output
from worker.tools import command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="paragone make-delta",
        description="Write what a model differs by from the base that it was trained from.",
    )
    add = parser.add_argument
    add("--base", "--base-model-path", required=True, help="what the model was trained from")
    add("--target", "--target-model-path", required=True, help="the model")
    add("--out", "--delta-path", required=True, help="the folder to write")
    command.add_output_flags(parser)
    arguments = parser.parse_args(argv)

    def work(output: Output) -> None:
        # On use, so that --help and wrong flags answer at once: it needs torch.
        from worker.checkpoint.delta_files import make_delta  # noqa: PLC0415
        from worker.checkpoint.folder import locate  # noqa: PLC0415

        make_delta(locate(arguments.base), locate(arguments.target), output)

    return command.run(parser, arguments, arguments.out, work)


if __name__ == "__main__":
    sys.exit(main())
