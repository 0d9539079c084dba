"""``paragone merge-lora``: an adapter and its base become one whole checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from worker.checkpoint.output import Output
from worker.tools import command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="paragone merge-lora",
        description="Write an adapter and its base as one whole checkpoint of the base's format.",
    )
    add = parser.add_argument
    add("path", nargs="?", metavar="PATH", help="the adapter")
    add("out", nargs="?", metavar="OUT", help="the folder to write")
    add("--model-path", help="PATH, as LLaVA's script calls it")
    add("--save-model-path", help="OUT, as LLaVA's script calls it")
    add("--model-base", help="what it was trained over (default: what the adapter names)")
    command.add_output_flags(parser)
    arguments = parser.parse_args(argv)
    path = command.one_of(parser, arguments.path, arguments.model_path, "PATH", "--model-path")
    out = command.one_of(
        parser, arguments.out, arguments.save_model_path, "OUT", "--save-model-path"
    )

    def work(output: Output) -> None:
        # On use, so that --help and wrong flags answer at once: it needs torch.
        from worker.checkpoint.merge_files import merge_lora  # noqa: PLC0415

        merge_lora(path, arguments.model_base, output)

    return command.run(parser, arguments, out, work)


if __name__ == "__main__":
    sys.exit(main())
