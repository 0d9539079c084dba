"""How often a streaming column is shown."""

from __future__ import annotations

from webui.sampler import TEXT_PACES, FramePace, Sample, Sampler


def _sample(version: int, *, column: int = 0, num_chars: int = 10, ended: bool = False) -> Sample:
    return Sample(column, version, num_chars, ended)


def test_the_first_text_is_shown_at_once_and_the_next_after_the_pace() -> None:
    sampler = Sampler(TEXT_PACES)
    assert sampler.take_due([_sample(1)], now=0.0) == [0]
    assert sampler.take_due([_sample(2)], now=0.05) == []
    assert sampler.take_due([_sample(2)], now=0.12) == [0]


def test_an_unchanged_column_is_not_shown_again() -> None:
    sampler = Sampler(TEXT_PACES)
    sampler.take_due([_sample(1)], now=0.0)
    assert sampler.take_due([_sample(1)], now=9.0) == []
    assert sampler.seconds_until_due([_sample(1)], now=9.0) is None


def test_columns_are_paced_independently() -> None:
    sampler = Sampler(TEXT_PACES)
    sampler.take_due([_sample(1, column=0), _sample(1, column=1)], now=0.0)
    changed = [_sample(2, column=0), _sample(1, column=1)]
    assert sampler.take_due(changed, now=0.2) == [0]


def test_an_end_is_shown_at_once() -> None:
    sampler = Sampler(TEXT_PACES)
    sampler.take_due([_sample(1)], now=0.0)
    assert sampler.seconds_until_due([_sample(2, ended=True)], now=0.01) == 0
    assert sampler.take_due([_sample(2, ended=True)], now=0.01) == [0]


def test_long_answers_are_shown_less_often() -> None:
    waits = []
    for num_chars in (100, 10_000, 100_000):
        sampler = Sampler(TEXT_PACES)
        sampler.take_due([_sample(1, num_chars=num_chars)], now=0.0)
        waits.append(sampler.seconds_until_due([_sample(2, num_chars=num_chars)], now=0.0))
    assert waits == sorted(waits)
    assert waits[0] is not None
    assert 0.1 <= waits[0] <= 0.125  # 8 to 10 times a second
    assert waits[-1] == 0.5


def test_a_minute_of_fast_tokens_makes_about_ten_updates_a_second() -> None:
    sampler, shown = Sampler(TEXT_PACES), 0
    for tick in range(6000):  # a token every 10 ms
        shown += len(sampler.take_due([_sample(tick + 1, num_chars=tick // 10)], now=tick / 100))
    assert 7 * 60 < shown <= 10 * 60


def test_columns_that_are_nearly_due_are_shown_together() -> None:
    sampler = Sampler(TEXT_PACES)
    sampler.take_due([_sample(1, column=0)], now=0.0)
    sampler.take_due([_sample(1, column=1)], now=0.04)
    both = [_sample(2, column=0), _sample(2, column=1)]
    assert sampler.take_due(both, now=0.08) == []
    assert sampler.take_due(both, now=0.12) == [0, 1]
    later = [_sample(3, column=0), _sample(3, column=1)]
    assert sampler.take_due(later, now=0.24) == [0, 1]


def test_frames_stand_farther_apart_while_the_server_is_late_but_no_more_than_half_a_second() -> (
    None
):
    pace = FramePace()
    pace.note(0.01)
    assert pace.seconds == 0.11
    apart = []
    for lateness in (0.03, 0.06, 0.06, 0.5, 2.0):
        pace.note(lateness)
        apart.append(pace.seconds)
    assert apart == sorted(apart)
    assert 0.11 < apart[2] < 0.5
    assert apart[-1] == 0.5
    for _ in range(10):
        pace.note(0.002)
    assert pace.seconds == 0.11
