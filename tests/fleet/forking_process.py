"""A fork server whose processes run the code that is their one argument.

Modules named on its command line are imported before the first of them is forked.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

from worker.fork_server import serve, take_standard_input


def prepare(args: Sequence[str], environ: Mapping[str, str]) -> None:
    for module in sys.argv[1].split():
        importlib.import_module(module)


def run(args: Sequence[str]) -> int:
    exec(args[0], {})
    return 0


if __name__ == "__main__":
    serve(take_standard_input(), prepare=prepare, run=run)
