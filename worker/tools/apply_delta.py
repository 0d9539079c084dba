"""``paragone apply-delta``: a base and a delta become the model that the delta was made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from worker.checkpoint.output import Output
from worker.tools import command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="paragone apply-delta",
        description="Put a base and delta weights together: the model that the delta was made of.",
    )
    add = parser.add_argument
    add("--base", "--base-model-path", required=True, help="what the delta was made over")
    add("--delta", "--delta-path", required=True, help="the delta weights")
    add("--out", "--target-model-path", required=True, help="the folder to write")
    command.add_output_flags(parser)
    arguments = parser.parse_args(argv)

    def work(output: Output) -> None:
        # On use, so that --help and wrong flags answer at once: it needs torch.
        from worker.checkpoint.delta_files import apply_delta  # noqa: PLC0415
        from worker.checkpoint.folder import locate  # noqa: PLC0415

        apply_delta(locate(arguments.base), locate(arguments.delta), output)

    return command.run(parser, arguments, arguments.out, work)


if __name__ == "__main__":
    sys.exit(main())
