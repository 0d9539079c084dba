"""The ranking, held to cases that can be computed by hand."""

from __future__ import annotations

import math

import pytest

from webui.leaderboard import Meeting, Vote, Winner, meetings, standings


def _votes(left: str, right: str, *, wins: int = 0, losses: int = 0, ties: int = 0) -> list[Vote]:
    return (
        [Vote(left, right, Winner.LEFT)] * wins
        + [Vote(left, right, Winner.RIGHT)] * losses
        + [Vote(left, right, Winner.TIE)] * ties
    )


def test_two_models_are_as_far_apart_as_the_odds_of_their_votes() -> None:
    # 29 wins and 9 losses, and the one tie that both are given: 29.5 to 9.5.
    best, worst = standings(_votes("a", "b", wins=29, losses=9))
    apart = 400 * math.log10(29.5 / 9.5)
    assert (best.model, worst.model) == ("a", "b")
    assert best.rating == pytest.approx(1000 + apart / 2, abs=0.01)
    assert worst.rating == pytest.approx(1000 - apart / 2, abs=0.01)
    assert best.num_votes == worst.num_votes == 38


def test_the_sides_do_not_matter() -> None:
    turned = [Vote("b", "a", Winner.RIGHT)] * 29 + [Vote("b", "a", Winner.LEFT)] * 9
    for mine, theirs in zip(
        standings(_votes("a", "b", wins=29, losses=9)), standings(turned), strict=True
    ):
        assert mine.model == theirs.model
        assert mine.rating == pytest.approx(theirs.rating, abs=0.01)


def test_three_models_whose_votes_follow_the_law_get_the_strengths_that_it_was_made_with() -> None:
    # Strengths 4 : 2 : 1. a beats b 2 of 3 times, b beats c 2 of 3, a beats c 4 of 5.
    many = 20_000
    votes = (
        _votes("a", "b", wins=2 * many, losses=many)
        + _votes("b", "c", wins=2 * many, losses=many)
        + _votes("a", "c", wins=4 * many, losses=many)
    )
    a, b, c = standings(votes)
    assert (a.model, b.model, c.model) == ("a", "b", "c")
    assert a.rating - b.rating == pytest.approx(400 * math.log10(2), abs=0.1)
    assert b.rating - c.rating == pytest.approx(400 * math.log10(2), abs=0.1)
    assert [each.rank for each in (a, b, c)] == [1, 2, 3]


def test_a_tie_and_both_bad_are_half_a_win_for_both() -> None:
    bad = [Vote("a", "b", Winner.BOTH_BAD)] * 5
    for votes in (bad, _votes("a", "b", ties=5), _votes("a", "b", wins=5, losses=5)):
        assert [each.rating for each in standings(votes)] == pytest.approx([1000, 1000], abs=0.01)


def test_intervals_hold_the_rating_and_shrink_with_votes() -> None:
    few = standings(_votes("a", "b", wins=6, losses=4))[0]
    many = standings(_votes("a", "b", wins=600, losses=400))[0]
    for each in (few, many):
        assert each.low <= each.rating <= each.high
    # As the root of the number of votes: ten times narrower.
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.35)
    assert few.rank == standings(_votes("a", "b", wins=6, losses=4))[1].rank == 1


def test_a_model_that_never_lost_has_a_finite_rating_and_strangers_a_common_scale() -> None:
    table = standings(_votes("a", "b", wins=9) + _votes("c", "d", wins=9))
    assert all(math.isfinite(each.low) and math.isfinite(each.high) for each in table)
    assert {table[0].model, table[1].model} == {"a", "c"}


def test_without_two_models_there_is_no_ranking() -> None:
    assert standings([]) == []


def test_the_pairwise_table_counts_from_both_sides() -> None:
    found = meetings(_votes("a", "b", wins=3, losses=1, ties=1) + _votes("b", "a", wins=1))
    assert found["a", "b"] == Meeting(wins=3, ties=1, losses=2)
    assert found["b", "a"] == Meeting(wins=2, ties=1, losses=3)
    assert found["a", "b"].share == pytest.approx(3.5 / 6)
    assert Meeting().share is None
