from recipe.dialogue import Speech
from recipe.exam import ROWS, mark, set_exam, table


def test_the_exam_asks_about_every_kind_equally_often_and_of_held_out_scenes_only() -> None:
    problems = set_exam([Speech.ENGLISH], 24, 3, seed=1)
    assert len(problems) == 72
    assert {row: [p.row for p in problems].count(row) for row in ROWS} == dict.fromkeys(ROWS, 6)


def test_a_seed_sets_the_same_exam_again() -> None:
    one, two = (set_exam([Speech.ENGLISH], 6, 2, seed=4) for _ in range(2))
    assert [p.turns for p in one] == [p.turns for p in two]


def test_an_answer_counts_only_if_it_is_exactly_right() -> None:
    problems = set_exam([Speech.ENGLISH], 12, 1, seed=1)
    answers = [problem.expected for problem in problems]
    answers[0] += " indeed"
    marks = mark(problems, answers)
    assert marks.overall == 11 / 12
    assert marks.share(problems[0].row) == 0.0
    assert f"| {problems[0].row} | 0.0 |" in table({"full": marks})
