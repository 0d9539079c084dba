"""LLaVA's vicuna_v1 template, and the picture written as words for the text-only stage."""

from __future__ import annotations

from typing import Final

from recipe.dialogue import Turn
from recipe.pixels import PATCHES
from recipe.tower import anchor_of
from recipe.world import COLOURS, GROUNDS, SHAPES, Scene

SYSTEM: Final = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
IMAGE: Final = "<image>"
END: Final = "</s>"


def render(turns: list[Turn], *, picture_in: int | None, picture_first: bool = True) -> str:
    """The prompt up to the answer of the last turn, as LLaVA's `get_prompt` writes it.

    `picture_in` is the turn that brings the picture, `picture_first` whether it stands before the
    question (LLaVA's habit) or after it.
    """
    text = f"{SYSTEM} "
    for index, turn in enumerate(turns):
        question = turn.question
        if picture_in == index:
            question = f"{IMAGE}\n{question}" if picture_first else f"{question}\n{IMAGE}"
        text += f"USER: {question} ASSISTANT:"
        if index < len(turns) - 1:
            text += f" {turn.answer}{END}"
    return text


_ROWS: Final = (" top", " middle", " bottom")
_COLUMNS: Final = (" left", " centre", " right")


def written_picture(scene: Scene) -> list[tuple[str, ...]]:
    """The scene as 64 patches of words: the ground, or a thing's colour, shape, row and column.

    The language model is given the sum of a patch's words, in the place where a projected patch
    will stand. (A picture's features say where they are; positions in a text hardly do.)
    """
    patches: list[tuple[str, ...]] = [(f" {scene.ground}",)] * PATCHES
    for thing in scene.things:
        place = (_ROWS[thing.row], _COLUMNS[thing.column])
        patches[anchor_of(thing.cell)] = (f" {thing.colour}", f" {thing.shape}", *place)
    return patches


def picture_words() -> list[str]:
    """Every word that a written picture can hold."""
    things = [f" {word}" for word in (*COLOURS, *SHAPES, *GROUNDS)]
    return [*things, *_ROWS, *_COLUMNS]
