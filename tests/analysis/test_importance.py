"""What a sweep's parameters explain: the one that decides comes first, and what is missing is said."""

from __future__ import annotations

import random

import pandas as pd
import pytest

from sstmerge_core.analysis import importance
from sstmerge_core.errors import RecipeError
from sstmerge_core.plots import sweeps


def settings(count: int = 24) -> tuple[list[dict[str, object]], list[float]]:
    numbers = random.Random(0)
    rows = [
        {
            "method": numbers.choice(["linear", "ties"]),
            "alpha": numbers.uniform(0, 1),
            "k": numbers.choice([5, 20]),
            "seed": 1,
        }
        for _ in range(count)
    ]
    return rows, [0.8 * float(str(row["alpha"])) + numbers.uniform(0, 0.02) for row in rows]


def test_the_parameter_that_decides_has_the_greatest_share_and_what_does_not_vary_none():
    rows, values = settings()
    found = importance.importances(rows, values, maximize=True)
    assert next(iter(found)) == "alpha" and found["alpha"] > 0.6 and "seed" not in found
    assert sum(found.values()) == pytest.approx(1)


def test_few_runs_and_equal_ones_explain_nothing():
    rows, values = settings()
    assert importance.importances(rows[:7], values[:7], maximize=True) == {}
    assert importance.importances(rows, [0.5] * len(rows), maximize=True) == {}
    assert importance.importances([], [], maximize=True) == {}


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importance, "installed", lambda: False)
    with pytest.raises(RecipeError, match=r"sstmerge\[search\]"):
        importance.importances(*settings(), maximize=True)


def test_lines_run_through_what_varies_and_every_measure_that_is_known():
    runs = pd.DataFrame(
        {
            "method": ["linear", "linear", "sst_gevp", "sst_gevp"],
            "parameters": ['{"alpha": 0.1}', '{"alpha": 0.5}', '{"alpha": 1.5, "k": 20}', '{"alpha": 1.5, "k": 5}'],
            "resistance": [0.1, 0.5, 0.9, 0.8],
            "utility": [0.9, 0.5, 0.1, 0.2],
            "over_refusal": [0.0, None, 0.2, 0.3],
            "seconds": [10.0, 11.0, 60.0, 61.0],
        }
    )
    figure = sweeps.parallel(runs)
    (lines,) = figure.data
    axes = {axis.label: axis for axis in lines.dimensions}
    assert list(axes)[:2] == ["Method", "α"] and {"k", "Resistance", "Utility", "Duration"} <= set(axes)
    assert "Over-refusal" not in axes, "one run has none"
    assert list(axes["α"].values) == [0.1, 0.5, 1.5, 1.5] and list(axes["Method"].ticktext) == [
        "Linear",
        "SST-Merge (GEVP)",
    ]
    assert list(axes["k"].ticktext) == ["5", "20", "–"]
    assert list(lines.line.color) == [0.1, 0.5, 0.9, 0.8]
    assert "rho" not in axes and len(axes) <= sweeps.MOST, "what no two runs of a method differ in was not tried"
