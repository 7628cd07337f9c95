"""Numbers as people write and read them."""

from __future__ import annotations

import pytest

from sstmerge_core import words
from sstmerge_core.builder import grid
from sstmerge_core.errors import RecipeError


def test_lists_and_ranges_give_each_value_once() -> None:
    assert grid.numbers("0.1, 0.3 0.5; 0.3", where="alpha") == [0.1, 0.3, 0.5]
    assert grid.numbers("0.1:0.5:0.1", where="alpha") == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert grid.numbers("5, 10:20:5", where="k", whole=True) == [5, 10, 15, 20]
    assert grid.numbers("", where="alpha") == []


def test_every_part_that_is_no_number_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        grid.numbers("0.1, abc, nan, 1:0:1, 1:2", where="alpha")
    assert [problem.fault.split("”")[0] for problem in caught.value.problems] == ["“abc", "“nan", "“1:0:1", "“1:2"]


def test_fractions_are_refused_where_whole_numbers_are_needed() -> None:
    with pytest.raises(RecipeError, match="1.5 is not a whole number"):
        grid.numbers("1, 1.5", where="k", whole=True)


def test_a_range_of_a_million_values_is_refused_before_it_is_made() -> None:
    with pytest.raises(RecipeError, match="values"):
        grid.numbers("0:1:0.000001", where="alpha")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.2, "under 1 s"), (8, "8 s"), (130, "2 min 10 s"), (1200, "20 min"), (3900, "1 h 5 min")],
)
def test_durations_read_like_speech(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_counts_sizes_and_ages() -> None:
    assert words.count(1, "run") == "1 run" and words.count(1000, "run") == "1,000 runs"
    assert words.size(4_900_000) == "4.9 MB" and words.size(12) == "12 bytes"
    assert words.ago(0.0, 7300.0) == "2 hours ago" and words.ago(0.0, 30.0) == "just now"


def test_names_are_never_markup_but_commands_in_a_fix_are() -> None:
    assert words.plain("A5_A7 [x](y) `z`") == r"A5\_A7 \[x\](y) \`z\`"
    assert words.plain("Run `sstmerge demo_1`, not a_b.", code=True) == r"Run `sstmerge demo_1`, not a\_b."


def test_a_long_text_is_cut_to_one_line_that_shows_that_it_was() -> None:
    assert words.shortened("a\n b", 3) == "a b" and words.shortened("abcd", 3) == "ab…"
