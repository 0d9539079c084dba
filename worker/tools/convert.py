"""``paragone convert``: an original LLaVA checkpoint becomes a Hugging Face checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from worker.checkpoint.output import Output
from worker.tools import command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="paragone convert",
        description="Write an original LLaVA checkpoint as a standard Hugging Face one, which "
        "AutoModelForImageTextToText and AutoProcessor load.",
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="the checkpoint: a folder, or owner/name on the hub")
    add("out", metavar="OUT", help="the folder to write")
    add("--model-base", help="base of a projector, an adapter or delta weights")
    add("--merge-lora", action="store_true", help="add an adapter into the weights")
    add(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="of the weights; auto keeps each as it is stored",
    )
    add("--chat-template", help="a template of ours by name, or a Jinja file")
    add("--revision", help="branch, tag or commit on the hub")
    command.add_output_flags(parser)
    arguments = parser.parse_args(argv)

    def work(output: Output) -> None:
        # On use, so that --help and wrong flags answer at once: it needs torch.
        from worker.checkpoint.export.checkpoint import convert  # noqa: PLC0415
        from worker.checkpoint.spec import LoadSpec  # noqa: PLC0415

        spec = LoadSpec(
            arguments.path,
            model_base=arguments.model_base,
            merge_lora=arguments.merge_lora,
            dtype=arguments.dtype,
            chat_template=arguments.chat_template,
            revision=arguments.revision,
            device="cpu",
        )
        convert(spec, output)

    return command.run(parser, arguments, arguments.out, work)


if __name__ == "__main__":
    sys.exit(main())
