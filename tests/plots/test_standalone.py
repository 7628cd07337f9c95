"""What is saved as one HTML file: small, whole, and drawn by the bundle of the plotly that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from sstmerge_core.plots import alpha_curves, export, standalone
from tests.plots.test_curves_apart import made


def exported() -> str:
    """Ten runs, one of them with half of what the others have, and their recipes."""
    labels = [f"Linear α={alpha / 10}" for alpha in range(1, 11)]
    rows = pd.DataFrame({"label": labels, "alpha": np.arange(1, 11) / 10, "method": "linear", "split": "test"})
    rows = rows.assign(resistance=np.linspace(0, 1, 10), utility=np.linspace(1, 0, 10))
    rows = made(rows.assign(over_refusal=np.linspace(0, 0.5, 10)))
    rows = rows.assign(k=pd.array([None] * 10, dtype="Int32"), resistance_n=pd.array([64] * 9 + [None], dtype="Int32"))
    rows.loc[9, ["over_refusal", "over_refusal_low", "over_refusal_high"]] = np.nan
    rows = alpha_curves.with_series(rows)
    recipe = "# a recipe\n" + "key: value\n" * 200
    figures = [alpha_curves.figure(rows, axis="share")]
    return export.page(figures, title="A5_A7: t", data=rows, recipes={f"run{n}": recipe for n in range(10)})


def test_ten_runs_are_less_than_one_and_a_half_megabytes():
    assert len(exported().encode()) < 1_500_000


def test_no_missing_value_is_told_as_a_program_would():
    shown = re.sub(r"base64,[A-Za-z0-9+/=]+", "", exported().partition("<h2>Data</h2>")[2])
    assert "&lt;NA&gt;" not in shown and "nan" not in shown.lower() and "–" in shown


def test_the_bundle_is_of_the_version_that_the_package_brings():
    version = re.compile(r"plotly\.js(?: \(basic - minified\))? v([\d.]+)")
    packed = version.search(standalone._basic()[:300])
    installed = version.search(get_plotlyjs()[:300])
    assert packed and installed and packed[1] == installed[1]
    named = Path(standalone.__file__).parents[2] / "NOTICE"
    assert f"plotly.js {packed[1]}" in named.read_text()


def test_what_the_small_bundle_cannot_draw_gets_the_large_one():
    assert len(standalone.script([go.Figure(go.Scatter(y=[1]))])) < 1_300_000
    assert len(standalone.script([go.Figure(go.Heatmap(z=[[1]]))])) > 3_000_000
    assert standalone.script([]) == ""
