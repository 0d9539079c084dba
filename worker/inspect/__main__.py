"""``paragone inspect PATH``: prints what a checkpoint is and whether it will fit.

Exit codes: 0 it loads here, 1 it does not (the message says why), 2 the command line is wrong.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from controller.chassis.settings import SettingsError
from controller.protocol.errors import ParagoneError
from worker.checkpoint.errors import CheckpointError
from worker.inspect.settings import ENV_PREFIX, PROGRAM, InspectSettings

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit code."""
    try:
        settings = InspectSettings.parse(argv, program=PROGRAM, env_prefix=ENV_PREFIX)
    except SettingsError as exc:
        sys.stderr.write(f"{PROGRAM}: {exc}\n")
        return EXIT_USAGE
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Its warnings are about models that are about to run; here none is.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Importing torch takes seconds, so that --help and wrong flags answer first.
    from worker.inspect.inspection import inspect  # noqa: PLC0415
    from worker.inspect.text import render  # noqa: PLC0415

    try:
        found = inspect(settings.load_spec())
    except (CheckpointError, ParagoneError) as exc:
        sys.stderr.write(f"{PROGRAM}: {exc}\n")
        return EXIT_FAILED
    if settings.as_json:
        sys.stdout.write(found.model_dump_json(indent=2, exclude_none=True) + "\n")
    else:
        sys.stdout.write(render(found))
    return 0 if found.fits else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
