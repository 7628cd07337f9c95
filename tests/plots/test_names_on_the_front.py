"""The names beside points of the front lie on no point, no letter of a pick and no other name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sstmerge_core import methods
from sstmerge_core.analysis.goals import GOALS
from sstmerge_core.plots import alpha_curves, pareto, standing

TELEPHONE, DESK = (300, 270), (640, 300)
"""Pixels of the plot within its axes"""


def crowd(number: int, seed: int) -> pd.DataFrame:
    """Runs along a falling front and below it, on test prompts."""
    random = np.random.default_rng(seed)
    resistance = random.uniform(0, 1, number)
    below = random.choice([0.0, 0.02, 0.2], number) * random.uniform(0, 1, number)
    utility = np.clip(0.7 - 0.5 * resistance - below, 0, 1)
    rows = {"run_id": [f"r{place}" for place in range(number)], "method": random.choice(methods.names(), number)}
    rows |= {"resistance": resistance, "utility": utility, "over_refusal": 0.1}
    rows |= {
        "source": "measured",
        "pair": "U_S",
        "split": "test",
        "label": "a run",
        "status": "finished",
        "prompt_sets": "p",
    }
    return pd.DataFrame(rows)


@pytest.mark.parametrize("plot", [TELEPHONE, DESK])
@pytest.mark.parametrize("seed", range(4))
def test_no_name_lies_on_a_point_a_letter_or_another_name(seed: int, plot: tuple[int, int]) -> None:
    shown = pareto.drawable(crowd(40, seed), "resistance", "utility")
    front = shown[shown["on_front"]]["run_id"]
    marks = {front.iloc[0]: "S", front.iloc[len(front) // 2]: "BU"}
    figure = pareto.figure(shown, families=True, intervals=False, marks=marks)
    axes = figure.layout.xaxis.range, figure.layout.yaxis.range

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = ((value - low) / (high - low) for value, (low, high) in zip((x, y), axes, strict=True))
        return across * plot[0], up * plot[1]

    def box(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
        return x - half_width, y - half_height, x + half_width, y + half_height

    boxes = [box(*place(row["resistance"], row["utility"]), 5.5, 5.5) for row in shown.to_dict("records")]
    letters = next(trace for trace in figure.data if trace.mode == "markers+text")
    for x, y, text in zip(letters.x, letters.y, letters.text, strict=True):
        across, up = place(x, y)
        boxes.append(box(across, up + 19, 4 * len(text), 7))
    (names,) = (trace for trace in figure.data if trace.mode == "text")
    written = 0
    for x, y, text, where in zip(names.x, names.y, names.text, names.textposition, strict=True):
        if not text.strip():
            continue
        across, up = place(x, y)
        side, rise = (1 if where.endswith("right") else -1), {"top": 7, "middle": 0, "bottom": -7}[where.split()[0]]
        half = 3 * len(text.strip())
        mine = box(across + side * (13 + half), up + rise, half, 6)
        assert mine[0] >= -1 and mine[2] <= plot[0] + 1, "cut at the edge"
        met = [other for other in boxes if mine[0] < other[2] and other[0] < mine[2]]
        assert not [other for other in met if mine[1] < other[3] and other[1] < mine[3]], text
        boxes.append(mine)
        written += 1
    assert written, "nothing is named"
    named = [text.strip() for text in names.text if text.strip()]
    assert len(set(named)) == len(named), "a method is named once"


def test_the_caption_tells_the_letters_that_are_there() -> None:
    assert standing.marks_words({"a": "S", "b": "BS"}) == (
        f"The picks are ringed, S: {GOALS['safety_first']}, B: {GOALS['balanced']}."
    )
    assert standing.marks_words({}) == ""


def test_points_of_one_alpha_say_what_they_measure() -> None:
    row = {"run_id": "a", "method": "sst_gevp", "source": "measured", "pair": "U_S", "label": "α=0.5 k=4", "alpha": 0.5}
    row |= {"split": "test", "seed": 1, "resistance": 0.16, "utility": 0.6, "over_refusal": 0.12}
    one = alpha_curves.panel(alpha_curves.with_series(pd.DataFrame([row])), intervals=False)
    (named,) = (trace for trace in one.data if trace.mode == "text")
    assert [text.strip() for text in named.text] == ["utility", "resistance", "over-refusal"]
    assert [where.split()[0] for where in named.textposition] == ["middle", "top", "bottom"], "two that are close part"
    rows = pd.DataFrame([row, row | {"run_id": "b", "alpha": 1.0, "label": "α=1 k=4"}])
    two = alpha_curves.panel(alpha_curves.with_series(rows), intervals=False)
    assert not [trace for trace in two.data if trace.mode == "text"], "lines have dashes"
