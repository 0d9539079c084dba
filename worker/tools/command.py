"""What the tools' command lines share: their flags for output, their messages, their exit codes.

Exit codes: 0 written, 1 it could not be, 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from worker.checkpoint.errors import CheckpointError
from worker.checkpoint.output import MAX_SHARD_BYTES, Output
from worker.tools.progress import ProgressBar

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # as shells report it

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def add_output_flags(parser: argparse.ArgumentParser, *, shards: bool = True) -> None:
    """The flags that `run` makes an `Output` of, beside ``out``."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the output folder where it is not empty"
    )
    if shards:
        parser.add_argument(
            "--max-shard-size",
            type=size_in_bytes,
            default=MAX_SHARD_BYTES,
            metavar="SIZE",
            help="largest weight file, e.g. 2GB (default: 5GB)",
        )


def size_in_bytes(text: str) -> int:
    """``5GB`` and the like, in bytes; a unit is a power of 1000.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 5GB or 500MB")
    return size


def one_of(
    parser: argparse.ArgumentParser, positional: str | None, flag: str | None, name: str, flags: str
) -> str:
    """A value that may stand by its place or behind LLaVA's flag; ends the program otherwise."""
    if positional is not None and flag is not None:
        parser.error(f"{name} is given twice: by its place and as {flags}")
    value = positional if positional is not None else flag
    if value is None:
        parser.error(f"the following arguments are required: {name} (or {flags})")
    return value


def run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    out: str,
    work: Callable[[Output], None],
) -> int:
    """Does the work with a progress bar and says how it ended; the exit code.

    Args:
        parser: whose program's name stands before messages.
        arguments: has what `add_output_flags` adds.
        out: the folder to write.
        work: writes it; its `CheckpointError` is shown as a message.
    """
    bar = ProgressBar(sys.stderr)
    output = Output(
        Path(out).expanduser(),
        overwrite=arguments.overwrite,
        max_shard_bytes=getattr(arguments, "max_shard_size", MAX_SHARD_BYTES),
        on_progress=bar.show,
    )
    started = time.monotonic()
    try:
        work(output)
    except CheckpointError as error:
        bar.close()
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        bar.close()
        sys.stderr.write(f"{parser.prog}: interrupted; nothing was written\n")
        return EXIT_INTERRUPTED
    bar.close()
    seconds = time.monotonic() - started
    size = sum(file.stat().st_size for file in output.path.iterdir() if file.is_file())
    sys.stdout.write(f"{output.path}: {size / 1e9:.2f} GB written in {seconds:.1f} s\n")
    return 0
