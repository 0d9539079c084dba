"""Prints how the policies compare: ``python -m tests.controller.policy_figures``.

Two simulated workers of speed 1 and 3, 200 s of simulated time, means over eight seeds.
"""

from __future__ import annotations

import statistics

from controller.dispatch import POLICIES
from tests.controller.cost_model import (
    Policy,
    SimulatedWorker,
    answer_percentile,
    exponential_answers,
    first_token_percentile,
    mixed_answers,
    round_robin,
    simulate,
)

SEEDS = range(8)
LOADS = [(exponential_answers, rate) for rate in (2.5, 3.5, 4.5)]
LOADS += [(mixed_answers, rate) for rate in (3.0, 5.0, 7.0)]


def main() -> None:
    named: dict[str, Policy | None] = {"round robin": None}
    named |= {method.value: policy for method, policy in POLICIES.items()}
    del named["affinity"]  # without keys it is least_work
    print("| answers | requests/s | " + " | ".join(named) + " |")
    print("| --- " + "| ---: " * (len(named) + 1) + "|")
    for answers, rate in LOADS:
        cells = []
        for policy in named.values():
            figures = []
            for seed in SEEDS:
                workers = [SimulatedWorker("slow", speed=1), SimulatedWorker("fast", speed=3)]
                chosen = policy or round_robin()
                requests = simulate(
                    chosen, workers, rate=rate, seconds=200, seed=seed, answers=answers
                )
                figures.append(
                    (first_token_percentile(requests, 99), answer_percentile(requests, 99))
                )
            means = [statistics.mean(each) for each in zip(*figures, strict=True)]
            cells.append(" / ".join(f"{mean:.{2 if mean < 10 else 1}f}" for mean in means))
        kind = answers.__name__.removesuffix("_answers")
        print(f"| {kind} | {rate:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
