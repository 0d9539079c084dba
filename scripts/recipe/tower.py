"""The vision tower: a small CLIP-style encoder, taught by dense supervision.

Each patch of the layer that LLaVA reads (-2) learns which colour and shape lie under it, what the
ground is, and, at the patch that stands for a grid cell, which thing the cell holds. The class
token of the last layer learns the ground and what there is at all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from recipe.drawing import draw_placed
from recipe.optimiser import Optimiser, Rates
from recipe.pixels import (
    IMAGE_SIDE,
    PATCH_SIDE,
    PATCHES,
    PATCHES_A_SIDE,
    to_bytes,
    to_pixel_values,
)
from recipe.world import (
    CELLS,
    COLOURS,
    GRID,
    GROUNDS,
    SHAPES,
    Placement,
    Scene,
    draw_scene,
    place_things,
)

SELECT_LAYER: Final = -2

# The patch column (and row) that stands for each column (and row) of the 3x3 grid.
_ANCHORS: Final = (1, 4, 6)
_NOTHING: Final = 0  # class 0 of the colour and shape heads


def anchor_of(cell: int) -> int:
    """The index of the patch that stands for a grid cell."""
    return _ANCHORS[cell // GRID] * PATCHES_A_SIDE + _ANCHORS[cell % GRID]


def tower_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=6,
        image_size=IMAGE_SIDE,
        patch_size=PATCH_SIDE,
        projection_dim=192,
        hidden_act="quick_gelu",
    )


@dataclass(frozen=True)
class Lesson:
    """Pictures and what is true of each patch; all labels are class indices."""

    pictures: np.ndarray  # uint8 (B, 112, 112, 3)
    body_colour: torch.Tensor  # (B, 64): under the patch
    body_shape: torch.Tensor  # (B, 64)
    slot_colour: torch.Tensor  # (B, 64): in the cell that the patch stands for, else nothing
    slot_shape: torch.Tensor  # (B, 64)
    ground: torch.Tensor  # (B,)


class DenseHeads(nn.Module):
    """Linear readings of the patches and of the class token; thrown away after the stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        colours, shapes = len(COLOURS) + 1, len(SHAPES) + 1
        self.sizes = (colours, shapes, colours, shapes, len(GROUNDS))
        self.patch = nn.Linear(width, sum(self.sizes))
        self.summary = nn.Linear(width, len(GROUNDS) + len(COLOURS) + len(SHAPES))


def make_lesson(rng: random.Random, count: int, *, held_out: bool = False) -> Lesson:
    """A batch of fresh drawings with their dense labels."""
    pictures = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    labels = torch.zeros(4, count, PATCHES, dtype=torch.long)
    grounds = torch.zeros(count, dtype=torch.long)
    for row in range(count):
        scene = draw_scene(rng, held_out=held_out)
        placements = place_things(scene, rng)
        picture = draw_placed(scene, placements, rng)
        pictures[row] = to_bytes(picture)
        grounds[row] = GROUNDS.index(scene.ground)
        _label(scene, placements, picture.size, labels[:, row])
    return Lesson(pictures, labels[0], labels[1], labels[2], labels[3], grounds)


def _label(
    scene: Scene, placements: tuple[Placement, ...], size: tuple[int, int], labels: torch.Tensor
) -> None:
    width, height = size
    side = max(size)
    grid = (torch.arange(PATCHES_A_SIDE) + 0.5) / PATCHES_A_SIDE
    down, across = torch.meshgrid(grid, grid, indexing="ij")
    for thing, place in zip(scene.things, placements, strict=True):
        colour, shape = COLOURS.index(thing.colour) + 1, SHAPES.index(thing.shape) + 1
        x = (place.x * width + (side - width) / 2) / side
        y = (place.y * height + (side - height) / 2) / side
        reach = 0.8 * place.radius * min(size) / side
        under = ((across - x) ** 2 + (down - y) ** 2 < reach**2).flatten()
        labels[0, under], labels[1, under] = colour, shape
        anchor = anchor_of(thing.cell)
        labels[2, anchor], labels[3, anchor] = colour, shape


def train_tower(
    *,
    seed: int,
    rounds: int,
    steps: int,
    batch: int,
    rates: Rates,
    save: Callable[[CLIPVisionModel], None],
    tower: CLIPVisionModel | None = None,
) -> None:
    """Teach the tower, from scratch unless one is given, in `rounds` of `steps`.

    Each round draws its own pictures and runs the schedule of the rates anew. `save` is called
    now and then and at the end.
    """
    torch.manual_seed(seed)
    tower = tower or CLIPVisionModel(tower_config())
    heads = DenseHeads(tower.config.hidden_size)
    named = [*tower.named_parameters(), *heads.named_parameters()]
    for number in range(1, rounds + 1):
        optimiser = Optimiser(named, rates, steps)
        rng = random.Random(seed * 1000 + number)
        name = f"tower round {number}"
        _round(name, tower, heads, rng, optimiser, steps=steps, batch=batch, save=save)


def _round(  # called once, above
    name: str,
    tower: CLIPVisionModel,
    heads: DenseHeads,
    rng: random.Random,
    optimiser: Optimiser,
    *,
    steps: int,
    batch: int,
    save: Callable[[CLIPVisionModel], None],
) -> None:
    anchors = torch.tensor([anchor_of(cell) for cell in range(CELLS)])
    started, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        lesson = make_lesson(rng, batch)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = tower(
                to_pixel_values(lesson.pictures), output_hidden_states=True
            ).hidden_states
            patch = heads.patch(hidden[SELECT_LAYER][:, 1:])
            summary = heads.summary(hidden[-1][:, 0])
        loss = _loss(heads, lesson, patch.float(), summary.float(), anchors)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimiser.step()
        mean += (loss.item() - mean) * max(0.02, 1 / step)
        if step % 100 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"{name} {step}/{steps}  loss {mean:.4f}  {minutes:.1f} min", flush=True)
        if step % 300 == 0 or step == steps:
            save(tower)
            print(f"{name} {step}  {measure_tower(tower, heads)}", flush=True)
            tower.train()


def _loss(
    heads: DenseHeads,
    lesson: Lesson,
    patch: torch.Tensor,
    summary: torch.Tensor,
    anchors: torch.Tensor,
) -> torch.Tensor:
    body_colour, body_shape, slot_colour, slot_shape, ground = torch.split(
        patch, list(heads.sizes), dim=-1
    )

    def every(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(scores.flatten(0, 1), labels.flatten())

    at_anchors = every(slot_colour[:, anchors], lesson.slot_colour[:, anchors]) + every(
        slot_shape[:, anchors], lesson.slot_shape[:, anchors]
    )
    elsewhere = every(slot_colour, lesson.slot_colour) + every(slot_shape, lesson.slot_shape)
    body = every(body_colour, lesson.body_colour) + every(body_shape, lesson.body_shape)
    grounds = every(ground, lesson.ground[:, None].expand(-1, PATCHES))
    told, present = summary[:, : len(GROUNDS)], summary[:, len(GROUNDS) :]
    there = torch.zeros_like(present)
    for labels, offset, kinds in (
        (lesson.slot_colour, 0, len(COLOURS)),
        (lesson.slot_shape, len(COLOURS), len(SHAPES)),
    ):
        one_hot = functional.one_hot(labels, kinds + 1).amax(dim=1)[:, 1:]
        there[:, offset : offset + kinds] = one_hot.float()
    overall = functional.cross_entropy(
        told, lesson.ground
    ) + functional.binary_cross_entropy_with_logits(present, there)
    return at_anchors + 0.5 * elsewhere + body + 0.3 * grounds + 0.2 * overall


@torch.no_grad()
def measure_tower(tower: CLIPVisionModel, heads: DenseHeads, count: int = 400) -> str:
    """How often a linear reading of held-out pictures is right; for the log."""
    tower.eval()
    lesson = make_lesson(random.Random(7), count, held_out=True)
    hidden = tower(to_pixel_values(lesson.pictures), output_hidden_states=True).hidden_states
    patch = heads.patch(hidden[SELECT_LAYER][:, 1:])
    _, _, colour, shape, ground = torch.split(patch, list(heads.sizes), dim=-1)
    anchors = torch.tensor([anchor_of(cell) for cell in range(CELLS)])
    right = (colour.argmax(-1) == lesson.slot_colour) & (shape.argmax(-1) == lesson.slot_shape)
    there = lesson.slot_shape[:, anchors] != _NOTHING
    things = right[:, anchors][there].float().mean()
    empty = right[:, anchors][~there].float().mean()
    whole = right[:, anchors].all(-1).float().mean()
    grounds = (ground.mean(1).argmax(-1) == lesson.ground).float().mean()
    return f"things {things:.4f} empty {empty:.4f} whole scenes {whole:.3f} grounds {grounds:.3f}"


@torch.no_grad()
def settle(tower: CLIPVisionModel) -> None:
    """Scale what the layers pass on to a spread of about one, which changes nothing else.

    Every layer reads through a layer norm, so dividing all that is written to the residual stream
    by one number leaves the tower's function as it was; a projector learns faster from it.
    """
    lesson = make_lesson(random.Random(8), 64)
    hidden = tower(to_pixel_values(lesson.pictures), output_hidden_states=True).hidden_states
    spread = hidden[SELECT_LAYER][:, 1:].std()
    for name, parameter in tower.named_parameters():
        if any(part in name for part in ("pre_layrnorm", "out_proj", "fc2")):
            parameter.div_(spread)


@torch.no_grad()
def look(tower: CLIPVisionModel, pictures: np.ndarray, batch: int = 128) -> torch.Tensor:
    """What the language model will be given of each picture: float16 (B, 64, width)."""
    tower.eval()
    seen = []
    for start in range(0, len(pictures), batch):
        with torch.autocast("cpu", torch.bfloat16):
            values = to_pixel_values(pictures[start : start + batch])
            hidden = tower(values, output_hidden_states=True).hidden_states
        seen.append(hidden[SELECT_LAYER][:, 1:].half())
    return torch.cat(seen)
