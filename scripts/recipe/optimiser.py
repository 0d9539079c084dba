"""The optimiser of every stage: Muon for the matrices inside the layers, AdamW for all else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Rates:
    """Peak learning rates and the shape of the schedule."""

    matrices: float  # Muon, for the two-dimensional weights inside the layers
    rest: float  # AdamW, for embeddings, heads, norms and biases
    warm_up: int = 30  # steps
    cool_down: float = 0.5  # the last part of the run in which the rates fall to zero


class Optimiser:
    """Two optimisers and one schedule behind a single `step`."""

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], rates: Rates, steps: int
    ) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in parameters:
            inside = ".layers." in name and parameter.ndim == 2 and "embed" not in name
            (matrices if inside and "lora_" not in name else rest).append(parameter)
        self._parameters = matrices + rest
        self._parts: list[tuple[torch.optim.Optimizer, float]] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=rates.matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            )
            self._parts.append((muon, rates.matrices))
        if rest:
            adam = torch.optim.AdamW(rest, lr=rates.rest, betas=(0.9, 0.99), weight_decay=0.0)
            self._parts.append((adam, rates.rest))
        self._rates = rates
        self._steps = steps
        self._done = 0

    def step(self) -> float:
        """One update of all parameters; gives the norm that the gradient had."""
        norm = float(nn.utils.clip_grad_norm_(self._parameters, 1.0))
        factor = self._factor()
        for part, peak in self._parts:
            for group in part.param_groups:
                group["lr"] = peak * factor
            if math.isfinite(norm):
                part.step()
            part.zero_grad(set_to_none=True)
        self._done += 1
        return norm

    def _factor(self) -> float:
        rising = min(1.0, (self._done + 1) / self._rates.warm_up)
        left = 1 - self._done / self._steps
        return max(0.0, min(rising, left / self._rates.cool_down))
