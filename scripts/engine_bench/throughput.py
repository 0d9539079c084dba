"""Tokens a second of several clients together, by server, in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine_bench.servers import OURS, BenchError, Running


@dataclass
class Figures:
    """What was measured: tokens/s by concurrency and server, and whether the answers agree."""

    speeds: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    same: dict[str, int] = field(default_factory=dict)  # answers that are ours, by server
    asked: int = 0

    def table(self) -> list[str]:
        """Lines of Markdown: a row for each concurrency, medians (lowest - highest)."""
        names = list(dict.fromkeys(name for _, name in self.speeds))
        others = [name for name in names if name != OURS]
        head = [*names, *(f"{OURS} / {name}" for name in others)]
        lines = [f"| concurrent | {' | '.join(head)} |", "| --- " * (len(head) + 1) + "|"]
        for concurrency in dict.fromkeys(concurrency for concurrency, _ in self.speeds):
            values = {name: self.speeds[concurrency, name] for name in names}
            cells = [spread(values[name], ".1f") for name in names]
            for name in others:
                # The two of one round lie next to each other in time: they share what else ran.
                pairs = zip(values[OURS], values[name], strict=True)
                cells.append(spread([mine / theirs for mine, theirs in pairs], ".2f"))
            lines.append(f"| {concurrency} | {' | '.join(cells)} |")
        return lines

    def plot(self) -> list[str]:
        """The medians as lines over concurrency, as a Mermaid chart, which GitHub draws."""
        names = list(dict.fromkeys(name for _, name in self.speeds))
        points = list(dict.fromkeys(concurrency for concurrency, _ in self.speeds))
        medians = {
            name: [statistics.median(self.speeds[point, name]) for point in points]
            for name in names
        }
        order = sorted(names, key=lambda name: -medians[name][-1])
        return [
            "```mermaid",
            "xychart-beta",
            f'  title "tokens/s; at the right from above: {", ".join(order)}"',
            f'  x-axis "concurrent requests" [{", ".join(map(str, points))}]',
            f'  y-axis "tokens/s" 0 --> {max(map(max, medians.values())) * 1.1:.0f}',
            *(f"  line [{', '.join(f'{value:.0f}' for value in medians[name])}]" for name in order),
            "```",
        ]

    def agreement(self) -> list[str]:
        """A line for each other server: how many of its answers are the same text."""
        return [
            f"answers of {name} that are the same as {OURS}: {same} of {self.asked}"
            for name, same in self.same.items()
        ]


def spread(values: Sequence[float], form: str) -> str:
    """Median (lowest - highest)."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} - {high:{form}})"


async def measure_round(
    servers: dict[str, Running],
    figures: Figures,
    questions: list[dict[str, object]],
    concurrency: int,
) -> None:
    """Each server in turn answers the same.

    Args:
        servers: by name, all running.
        figures: what it adds to.
        questions: with pictures that no server has seen.
        concurrency: how many clients at once.
    """
    texts = {}
    for name, server in servers.items():
        speed, texts[name] = await load(server, questions, concurrency)
        figures.speeds.setdefault((concurrency, name), []).append(speed)
    figures.asked += len(questions)
    for name in servers:
        if name != OURS:
            agreeing = sum(a == b for a, b in zip(texts[OURS], texts[name], strict=True))
            figures.same[name] = figures.same.get(name, 0) + agreeing


async def load(
    server: Running, questions: list[dict[str, object]], concurrency: int
) -> tuple[float, list[str]]:
    """Completion tokens a second of all clients together, and the answers.

    Raises:
        BenchError: an answer is shorter or longer than was asked for, so that speeds would not
            compare.
    """
    waiting = iter(range(len(questions)))
    answers = [""] * len(questions)
    tokens = 0

    async def one_client() -> None:
        nonlocal tokens
        for index in waiting:
            answers[index], length = await server.ask(questions[index])
            if length != questions[index]["max_tokens"]:
                raise BenchError(f"{length} tokens for {questions[index]['max_tokens']}")
            tokens += length

    before = time.perf_counter()
    async with asyncio.TaskGroup() as clients:
        for _ in range(concurrency):
            clients.create_task(one_client())
    return tokens / (time.perf_counter() - before), answers
