"""Every input of every corpus ends in the right result or in an error that says what is wrong, in time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from sstmerge_core.errors import AdapterError, DataError, Problem
from tests.corpus import sweep as corpus_sweep
from tests.corpus.bounds import SECONDS
from tests.corpus.case import EITHER, FAULTS, REFUSED, RIGHT, Case, GotThrough, outcome
from tests.corpus.summary import LEAST, TITLES, counts, table
from tests.corpus.sweep import KINDS, sweep


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_of_a_corpus_hangs_gets_through_or_ends_without_words(kind: str) -> None:
    outcomes = sweep(kind)
    assert len(outcomes) >= LEAST[kind] and len({one.name for one in outcomes}) == len(outcomes)
    assert not [f"{one.how}: {one.name}: {one.told}" for one in outcomes if one.is_fault]
    assert {one.how for one in outcomes} == {RIGHT, REFUSED}, "some must be usable, and some not"


def test_each_way_to_fail_is_seen(tmp_path: Path) -> None:
    def raising(error: Exception):
        def tried(folder: Path) -> bool:
            raise error

        return tried

    told = DataError(Problem("x.csv", "has no rows", "Add some."))
    cases = {
        "right": Case("", RIGHT, lambda folder: True),
        "wrong result": Case("", EITHER, lambda folder: False),
        "refused in words": Case("", REFUSED, raising(told)),
        "wrongly refused": Case("", RIGHT, raising(told)),
        "wrongly accepted": Case("", REFUSED, lambda folder: True),
        "in no words": Case("", REFUSED, raising(KeyError("x"))),
        "got through": Case("", EITHER, raising(GotThrough("x"))),
    }
    assert {how: outcome(case, tmp_path).how for how, case in cases.items()} == {how: how for how in cases}
    for error in (AdapterError([]), AdapterError(Problem("", "x", "y")), AdapterError(Problem("x", "y"))):
        assert outcome(Case("", REFUSED, raising(error)), tmp_path).how == "in no words"


def test_what_hangs_eats_memory_or_ends_the_process_is_seen_and_the_rest_still_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.corpus.sweep.PATIENCE", 4.0)
    found = {one.name: one.how for one in sweep("faulty_on_purpose")}
    assert found == {
        "fine": "right",
        "hangs": "hung",
        "takes memory": "beyond the bounds",
        "takes too much memory": "in no words",
        "ends the process": "in no words",
        "fine at the end": "right",
    }


def test_what_works_too_long_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 1.0 + SECONDS + 0.1))
    monkeypatch.setattr(corpus_sweep, "_worked", lambda: next(clock))
    assert corpus_sweep._bounded(Case("", RIGHT, lambda folder: True), tmp_path).how == "beyond the bounds"


def test_the_figures_of_a_sweep_add_up() -> None:
    from tests.corpus.case import Outcome

    outcomes = [Outcome("a", RIGHT, seconds=0.5, bytes=2_000_000), Outcome("b", REFUSED), Outcome("c", "hung")]
    found = counts(outcomes)
    assert found["tried"] == sum(found[how] for how in (RIGHT, REFUSED, *FAULTS)) == 3
    assert (found["hung"], found["most seconds"], found["most MB"]) == (1, 0.5, 2)
    assert set(TITLES) == set(LEAST) == set(KINDS)
    assert table({"x": found}).count("\n") == 2
