import random

import pytest
from recipe.world import CELLS, Scene, Thing, draw_any_scene, draw_scene, place_things


def test_scenes_have_at_most_four_things_in_reading_order_and_their_own_cells() -> None:
    rng = random.Random(1)
    for _ in range(500):
        cells = [thing.cell for thing in draw_any_scene(rng).things]
        assert len(cells) <= 4
        assert cells == sorted(set(cells))
        assert all(0 <= cell < CELLS for cell in cells)


def test_training_and_exam_never_share_a_scene() -> None:
    rng = random.Random(2)
    training = {draw_scene(rng, held_out=False).description() for _ in range(3000)}
    exam = {draw_scene(rng, held_out=True).description() for _ in range(1000)}
    assert not training & exam


def test_about_one_scene_in_ten_is_held_out() -> None:
    rng = random.Random(3)
    held_out = sum(draw_any_scene(rng).is_held_out for _ in range(4000))
    assert 300 < held_out < 500


def test_the_split_depends_on_the_description_alone() -> None:
    things = (Thing(4, "red", "circle"),)
    assert Scene("white", things).is_held_out == Scene("white", things).is_held_out
    assert Scene("white", things).description() == "white|4:red circle"


def test_a_seed_gives_the_same_scenes_again() -> None:
    one, two = random.Random(5), random.Random(5)
    assert [draw_any_scene(one) for _ in range(50)] == [draw_any_scene(two) for _ in range(50)]


@pytest.mark.parametrize("seed", range(40))
def test_each_thing_is_drawn_with_its_centre_in_its_cell(seed: int) -> None:
    rng = random.Random(seed)
    scene = draw_any_scene(rng)
    for thing, placement in zip(scene.things, place_things(scene, rng), strict=True):
        assert int(placement.x * 3) == thing.column
        assert int(placement.y * 3) == thing.row
