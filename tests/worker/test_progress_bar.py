"""A terminal shows how far loading is, beneath the log and never in its way."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from controller.protocol.fleet import LoadProgress
from worker.progress_bar import ProgressBar, line

CHECKPOINT = Path(__file__).parents[1] / "data" / "oracle" / "llava-v1.5-tiny"
HALF = LoadProgress(
    phase="language model", fraction=0.5, bytes_done=3 * 2**30, bytes_total=6 * 2**30
)


def test_the_line_names_phase_share_and_bytes():
    assert line("llava", HALF, 60) == (
        "llava  language model  ██████░░░░░░░   50%  3.00 of 6.00 GiB"
    )


def test_the_line_fits_a_narrow_terminal():
    for columns in (10, 30, 45, 50, 200):
        assert len(line("llava", HALF, columns)) <= columns


def test_a_phase_without_bytes_stands_alone():
    assert line("llava", LoadProgress(phase="importing torch"), 60) == "llava  importing torch"


def test_log_lines_take_the_bars_place_and_it_comes_back_below():
    terminal = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logging.StreamHandler(terminal))
    bar = ProgressBar(terminal, "llava", columns=lambda: 70)
    bar.make_room_for_logs(logger)
    bar.show(HALF)
    logger.warning("something happened")
    bar.show(HALF)
    bar.close()
    bar.show(HALF)  # a thread that was late
    drawn = "\r\x1b[K" + line("llava", HALF, 69)
    assert terminal.getvalue() == f"{drawn}\r\x1b[Ksomething happened\n{drawn}\r\x1b[K"


def test_a_worker_on_a_terminal_draws_its_loading():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "worker", "--model-path", str(CHECKPOINT), "--device", "cpu"),
            *("--port", "0", "--no-register"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = ""
    try:
        while "is ready" not in seen:
            seen += os.read(ours, 4096).decode(errors="replace")
    finally:
        process.terminate()
        process.wait(60)
        os.close(ours)
    assert re.search(r"\r\x1b\[Kllava-v1\.5-tiny  language model  █+░* +\d+%  0\.00 of", seen)
    # The last word is the log's, on a line of its own.
    assert re.search(r"\n(\r\x1b\[K)?[^\r█]* is ready\r\n", seen)
