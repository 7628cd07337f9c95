"""The picture of the runs that are compared."""

from __future__ import annotations

import pandas as pd

from sstmerge_core.plots import compare


def test_letters_of_points_in_one_place_are_written_together() -> None:
    places = {"run_id": ["a", "b", "c"], "resistance": [0.1, 0.8, 0.101], "utility": [0.5, 0.5, 0.502]}
    shown = pd.DataFrame(places)
    for measure in ("resistance", "utility"):
        shown = shown.assign(**{f"{measure}_low": shown[measure] - 0.05, f"{measure}_high": shown[measure] + 0.05})
    assert compare.labels(shown, {"a": "A", "b": "B", "c": "C"}) == [(0.1, 0.5, "AC"), (0.8, 0.5, "B")]
