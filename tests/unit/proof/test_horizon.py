"""Numbers of transactions: which had not begun, across the wrap of the 32 bits that the log has of them."""

from __future__ import annotations

import pytest

from dataflow.testing.proof.horizon import Horizon, Window, numbers, read_horizon

_WRAP = 1 << 32


def age_of_oldest(following: int) -> str:
    """What age('3'::xid) is when this is the next number: a difference of 32 bits, with a sign."""
    difference = (following - 3) % _WRAP
    return str(difference - _WRAP if difference >= _WRAP // 2 else difference)


@pytest.mark.parametrize(
    ("snapshot", "following"),
    [
        ("755:755:", 755),
        ("755:755:", 757),
        ("700:755:700,720", 760),
        (f"{_WRAP - 2}:{_WRAP - 1}:{_WRAP - 2}", _WRAP + 4),
        (f"{3 * _WRAP + 7}:{3 * _WRAP + 7}:", 3 * _WRAP + 9),
        (f"{_WRAP // 2 + 9}:{_WRAP // 2 + 9}:", _WRAP // 2 + 12),
    ],
)
def test_the_first_number_that_had_not_begun(snapshot: str, following: int) -> None:
    horizon = read_horizon("0/15D7A50", snapshot, age_of_oldest(following))
    assert horizon == Horizon("0/15D7A50", snapshot, following)


def test_what_was_open_before_is_told_from_what_began_since() -> None:
    window = Window(Horizon("0/1", "700:755:700", 757), (700, 756, 757, _WRAP + 5), 0.0, ())
    assert window.open_before == {700, 756}
    assert window.numbers == {700, 756, 757, 5}


@pytest.mark.parametrize(("answer", "expected"), [(None, ()), ("{7}", (7,)), ("{7,4294967301}", (7, 4294967301))])
def test_arrays_of_numbers(answer: str | None, expected: tuple[int, ...]) -> None:
    assert numbers(answer) == expected
