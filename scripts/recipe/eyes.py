"""What the frozen tower sees of many drawings, kept in memory, and the projector that reads it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionModel

from recipe.drawing import draw
from recipe.pixels import IMAGE_SIDE, to_bytes
from recipe.tower import look
from recipe.world import Scene, draw_scene


@dataclass(frozen=True)
class Seen:
    """Scenes and the tower's features of one drawing of each."""

    scenes: list[Scene]
    features: torch.Tensor  # float16 (N, 64, width)

    def save(self, path: Path) -> None:
        """Write the features; the scenes are made again from their seed."""
        torch.save({"features": self.features}, path)


def scenes_of(seed: int, count: int) -> list[Scene]:
    """The training scenes of a seed."""
    rng = random.Random(seed)
    return [draw_scene(rng, held_out=False) for _ in range(count)]


def look_at_scenes(tower: CLIPVisionModel, seed: int, count: int, chunk: int = 512) -> Seen:
    """Draw `count` training scenes and let the tower look at each once."""
    scenes = scenes_of(seed, count)
    rng = random.Random(seed + 1)
    features = []
    for start in range(0, count, chunk):
        part = scenes[start : start + chunk]
        pictures = np.empty((len(part), IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
        for row, scene in enumerate(part):
            pictures[row] = to_bytes(draw(scene, rng))
        features.append(look(tower, pictures))
        if start % (chunk * 8) == 0:
            print(f"look {start + len(part)}/{count}", flush=True)
    return Seen(scenes, torch.cat(features))


def load_seen(path: Path, seed: int) -> Seen:
    """What `Seen.save` wrote, with the scenes made again from their seed."""
    features = torch.load(path, weights_only=True)["features"]
    return Seen(scenes_of(seed, len(features)), features)


class Projector(nn.Sequential):
    """LLaVA's `mlp2x_gelu`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    @torch.no_grad()
    def expect(self, features: torch.Tensor) -> None:
        """Start as if each feature (of N, 64, width) had mean zero and spread one."""
        first = self[0]
        if not isinstance(first, nn.Linear):
            raise TypeError("a projector begins with a linear layer")
        mean, spread = features.float().mean((0, 1)), features.float().std((0, 1))
        first.weight.div_(spread)
        first.bias.sub_(first.weight @ mean)


class Eyes:
    """Pictures as the projector's reading of the tower's features."""

    def __init__(self, seen: Seen, projector: Projector) -> None:
        self._seen = seen
        self._projector = projector

    def __call__(self, pictures: list[int]) -> torch.Tensor:
        """Projected pictures (N, 64, hidden)."""
        projected: torch.Tensor = self._projector(self._seen.features[pictures].float())
        return projected
