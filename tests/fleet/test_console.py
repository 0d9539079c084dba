"""What `paragone up` writes, byte for byte."""

from __future__ import annotations

import os
import threading
import time

from controller.fleet.console import Console


class Pipe:
    """A console on a pipe, and what was written to it."""

    def __init__(self, *, live: bool = False, colour: bool = False, utf8: bool = True) -> None:
        self.read_end, self.write_end = os.pipe()
        self.broken = threading.Event()
        self.console = Console(
            self.write_end,
            ["web", "w"],
            live=live,
            colour=colour,
            columns=lambda: 40,
            utf8=utf8,
            on_broken=self.broken.set,
        )

    def finish(self) -> str:
        self.console.close()
        os.close(self.write_end)
        with os.fdopen(self.read_end, encoding="utf-8", newline="") as reader:
            return reader.read()


def test_prefixes_are_aligned():
    made = Pipe()
    made.console.line("web", "one")
    made.console.line("w", "two")
    made.console.note("three")
    assert made.finish() == "web      | one\nw        | two\nparagone | three\n"


def test_each_process_has_its_colour_and_an_alarm_is_red():
    made = Pipe(colour=True)
    made.console.line("web", "one")
    made.console.alarm("w", "two")
    text = made.finish()
    assert text == (
        "\x1b[36mweb      |\x1b[0m one\n\x1b[32mw        |\x1b[0m \x1b[1;31mtwo\x1b[0m\n"
    )


def test_the_status_line_is_cleared_before_a_line_and_drawn_again_after_it():
    made = Pipe(live=True)
    made.console.status("waiting")
    made.console.line("w", "x")
    made.console.status("")
    clear = "\r\x1b[2K"
    assert made.finish() == f"waiting{clear}w        | x\nwaiting{clear}"


def test_the_status_line_fits_into_one_row():
    made = Pipe(live=True)
    made.console.status("x" * 100)
    assert made.finish() == "x" * 39 + "\r\x1b[2K"


def test_without_a_terminal_there_is_no_status_line():
    made = Pipe()
    made.console.status("waiting")
    assert made.finish() == ""


def test_the_box_is_as_wide_as_its_longest_line():
    made = Pipe()
    made.console.box(["ready", "Page http"])
    assert made.finish() == (
        "\n╭─────────────╮\n│  ready      │\n│  Page http  │\n╰─────────────╯\n\n"
    )


def test_the_box_is_drawn_in_ascii_where_nothing_else_is_understood():
    made = Pipe(utf8=False)
    made.console.box(["a"])
    assert made.finish() == "\n+-----+\n|  a  |\n+-----+\n\n"


def test_a_reader_that_stands_still_blocks_nobody_and_is_told_what_it_missed():
    made = Pipe()
    for _ in range(20_000):  # far beyond a pipe's buffer and the backlog
        made.console.line("w", "x" * 50)
    lines: list[str] = []

    def read() -> None:
        with os.fdopen(made.read_end, encoding="utf-8") as reader:
            lines.extend(reader)

    reader = threading.Thread(target=read)
    reader.start()
    while not made.console._queue.empty():
        time.sleep(0.01)
    made.console.note("again")
    made.console.close()
    os.close(made.write_end)
    reader.join()
    dropped = [line for line in lines if "were not shown" in line]
    shown = sum("xxx" in line for line in lines)
    assert sum(int(line.split()[2]) for line in dropped) + shown == 20_000
    assert lines[-1] == "paragone | again\n"


def test_a_reader_that_is_gone_is_reported_once_and_stops_nothing():
    made = Pipe()
    os.close(made.read_end)
    made.console.line("w", "x")
    assert made.broken.wait(60)
    made.console.line("w", "y")
    made.console.close()
    os.close(made.write_end)
