"""What a picture's figures rest on, in words."""

from __future__ import annotations

import pandas as pd

from sstmerge_core.plots.told import told_on

ROW = {"source": "measured", "split": "test", "judge": "refusal_regex_v2", "resistance_n": 64, "utility_n": 64}


def test_prompts_number_judge_and_seeds_are_said() -> None:
    told = told_on(pd.DataFrame([ROW, ROW]))
    assert told.replace("\\", "") == (
        "Measured on test prompts, n = 64 a suite, judge refusal_regex_v2, one seed a run."
    )


def test_runs_of_several_splits_numbers_and_judges_are_said_to_be_so() -> None:
    told = told_on(pd.DataFrame([ROW, ROW | {"split": "selection", "resistance_n": 32, "judge": "hand"}]))
    assert "test and selection prompts, n = 32 to 64 a suite, judge hand and refusal" in told


def test_of_reported_figures_nothing_is_known() -> None:
    assert told_on(pd.DataFrame([ROW | {"source": "reported"}])) == ""
