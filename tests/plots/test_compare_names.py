"""What runs are called beside each other, how they are found, and their twins on test prompts."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sstmerge_core.plots import compare


def _runs(*rows: dict[str, Any]) -> pd.DataFrame:
    usual = {
        "pair": "A5_A7",
        "method": "linear",
        "label": "Linear α=0.5",
        "utility_suite": "facts",
        "split": "test",
        "status": "finished",
        "source": "measured",
        "setting": "s",
        "seed": None,
        "dtype": "float32",
        "created_at": pd.Timestamp("2026-11-01 10:00"),
        "n": 64,
    }
    return pd.DataFrame([usual | {"run_id": f"{place:02d}aaaaaaaaaa"} | row for place, row in enumerate(rows)])


def test_twins_are_told_apart_by_what_differs_and_by_the_id_only_where_nothing_does() -> None:
    assert list(compare.names(_runs({"n": 64}, {"n": 8})).values()) == [
        "A5_A7 · Linear α=0.5 · n=64",
        "A5_A7 · Linear α=0.5 · n=8",
    ]
    assert list(compare.names(_runs({"seed": 42}, {"seed": 43})).values()) == [
        "A5_A7 · Linear α=0.5 · seed 42",
        "A5_A7 · Linear α=0.5 · seed 43",
    ]
    later = pd.Timestamp("2026-11-02 10:00")
    assert list(compare.names(_runs({}, {"created_at": later})).values()) == [
        "A5_A7 · Linear α=0.5 · 2026-11-01 10:00",
        "A5_A7 · Linear α=0.5 · 2026-11-02 10:00",
    ]
    assert list(compare.names(_runs({}, {})).values()) == [
        "A5_A7 · Linear α=0.5 · 00aaaa",
        "A5_A7 · Linear α=0.5 · 01aaaa",
    ]
    assert list(compare.names(_runs({}, {"split": "selection"})).values()) == [
        "A5_A7 · Linear α=0.5",
        "A5_A7 · Linear α=0.5 · selection",
    ]


def test_runs_are_found_by_words_in_any_order_and_case() -> None:
    names = compare.names(_runs({}, {"pair": "A6_A7"}, {"split": "selection"}))
    assert compare.having(names, "linear a5_a7") == compare.having(names, "A5_A7 LINEAR") == [*names][::2]
    assert compare.having(names, "selection linear") == [[*names][2]]
    assert compare.having(names, "ties") == [] and compare.having(names, " ") == [*names]


def test_the_twin_on_test_prompts_is_of_the_same_setting_and_not_offered_twice() -> None:
    runs = _runs({"split": "selection"}, {}, {"setting": "another"})
    searched, told, other = runs["run_id"]
    assert compare.twins_on_test(runs, [searched]) == {searched: told}
    assert compare.twins_on_test(runs, [searched, told]) == {} == compare.twins_on_test(runs, [other])
