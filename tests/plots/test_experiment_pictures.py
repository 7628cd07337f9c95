"""Every experiment's picture from a small result."""

from __future__ import annotations

from typing import Any

import pytest

from sstmerge_core import experiments
from sstmerge_core.experiments import Result, Table
from sstmerge_core.plots import experiments as pictures
from tests.there import there

POINT = {"resistance": 0.5, "resistance_low": 0.4, "resistance_high": 0.7, "utility": 0.3, "run_id": "a"}
ROWS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "safety-tax": (
        "tax",
        [{"model": "Base model", "pair": "U_S", **POINT}, {"model": "Linear α=0.5", "pair": "U_S", **POINT}],
    ),
    "interference": (
        "retention",
        [{"method": "linear", "experts": n, "retention": 0.5, "run_id": "a"} for n in (8, 12)],
    ),
    "baselines": (
        "runs",
        [{"method": "linear", "seed": seed, "score": 1.0, "run_id": "a"} for seed in (42, 43)]
        + [{"method": "Base model", "seed": 42, "score": 0.0, "run_id": "a"}],
    ),
    "alpha-k": (
        "finalists",
        [{"method": "U alone", "pair": "U_S", "alpha": None, **POINT}],
    ),
    "pre-post": ("runs", [{"model": "After tuning", "run": "x", **POINT}, {"model": "DARE", "run": "y", **POINT}]),
    "contest": (
        "contest",
        [
            {"method": "linear", "pair": "U_S", **POINT, "run_ids": ["a", "b"]},
            {"method": "U alone", "pair": "U_S", **POINT},
        ],
    ),
    "search": ("trials", [{"method": "sst_gevp", "parameters": "k=3", **POINT}]),
}
PREDICTED = Table(
    "predicted", "", "", [{"method": "linear", "alpha": a, "benign_cost": a, "harm_change": -a} for a in (0.1, 0.2)]
)


def result(name: str, rows: list[dict[str, Any]]) -> Result:
    extra = [PREDICTED] if name == "search" else []
    return Result(
        name, "", {}, "judge", "base", [Table(ROWS[name][0], "", "", rows), *extra], {"best_method": None}, []
    )


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_experiment_has_a_picture_whose_points_lead_to_runs(name: str) -> None:
    picture = pictures.figure(result(name, ROWS[name][1]))
    assert picture is not None
    drawn = [one for trace in picture.data for one in (trace.customdata if trace.customdata is not None else ())]
    assert drawn.count("a") == len(ROWS[name][1])


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_nothing_measured_draws_nothing(name: str) -> None:
    assert pictures.figure(result(name, [])) is None


def test_models_take_the_colour_of_their_method() -> None:
    picture = there(pictures.figure(result("pre-post", ROWS["pre-post"][1])))
    assert [trace.name for trace in picture.data] == [
        pictures.style("adapter").title,
        pictures.style("dare_linear").title,
    ]


def test_the_predicted_front_is_a_line_along_alpha() -> None:
    (line,) = there(pictures.predicted(result("search", []))).data
    assert list(line.x) == [0.1, 0.2] and list(line.text) == ["α = 0.1", "α = 0.2"]
    assert pictures.predicted(result("alpha-k", [])) is None
