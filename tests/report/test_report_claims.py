"""The shipped claims and tables of the 2026-01 report: the known contradictions, found by computation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sstmerge_core.errors import DataError
from sstmerge_core.report import claims, tables
from sstmerge_core.report.points import points
from sstmerge_core.store import Owner, queries
from sstmerge_core.workspace import Workspace


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Points of every table of the report."""
    with Owner.open(Workspace(tmp_path_factory.mktemp("reported"))) as owner:
        runs = queries.report_runs(owner.cursor(), sources=["reported"])
    return points(runs[runs["reported_table"] != "paper"])


@pytest.fixture(scope="module")
def checked(reported: pd.DataFrame) -> dict[tuple[str, str], claims.Checked]:
    return {(one.claim.pair, one.claim.quantity): one for one in claims.check(claims.read(), reported)}


def test_every_shipped_claim_can_be_checked(checked: dict[tuple[str, str], claims.Checked]) -> None:
    assert len(checked) == len(claims.read()) == 18
    assert {one.verdict for one in checked.values()} == {claims.CONFIRMED, claims.CONTRADICTION}


@pytest.mark.parametrize(
    ("quantity", "computed", "told"),
    [
        ("count_top10_sst", 6.0, "4 of 10 in the report's own top-10 table"),
        ("best_sum", 139.57, "SST-Merge k=10 α=0.05"),
        ("best_extended_sum", 139.57, "k=10 α=0.09 with 137.68 is number 4"),
        ("pareto_sst_0.1_0.4", 0.0, "1 of 4 are on the front"),
        ("k10_over_k5_utility_points", 0.54, "14.52 points (29 %), but the grids differ"),
        ("sst_safety_at_0.1_vs_A5", 69.0, "below A5 alone (70.80 %)"),
    ],
)
def test_what_the_tables_do_not_bear_out_is_a_contradiction(
    checked: dict[tuple[str, str], claims.Checked], quantity: str, computed: float, told: str
) -> None:
    one = checked["A5_A7", quantity]
    assert one.verdict == claims.CONTRADICTION
    assert one.computed == pytest.approx(computed, abs=0.005) and told in one.why and one.run_ids


def test_a_claim_that_one_of_two_tables_bears_out_says_what_the_other_gives(
    checked: dict[tuple[str, str], claims.Checked],
) -> None:
    one = checked["A5_A7", "mean_utility_sst_k5"]
    assert one.verdict == claims.CONFIRMED and "alpha_dependence of the same settings gives 50.48" in one.why


def test_the_same_claim_with_another_figure_would_be_contradicted(reported: pd.DataFrame) -> None:
    wrong = [claims.Claim("A5_A7", "TIES mean over alpha 0.1-1.0", "mean_jailbreak_ties", 93.8, "")]
    assert claims.check(wrong, reported)[0].verdict == claims.CONTRADICTION


def test_what_no_rule_computes_is_said_not_to_be_checkable(reported: pd.DataFrame) -> None:
    found = claims.check([claims.Claim("A5_A7", "it is nice", "niceness", 1, "")], reported)
    assert found[0].verdict == claims.UNKNOWN and "niceness" in found[0].why
    absent = claims.check([claims.Claim("A1_A2", "", "best_sum", 1, "")], reported)
    assert absent[0].verdict == claims.UNKNOWN


def test_a_claim_without_a_number_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "claims.csv"
    path.write_text("pair,claim,quantity,claimed_value,where\nA5_A7,x,best_sum,many,\n")
    with pytest.raises(DataError, match="row 1"):
        claims.read(path)


def test_the_two_tables_of_k5_are_found_to_differ(reported: pd.DataFrame) -> None:
    both = tables.disagreements(reported[reported["pair"] == "A5_A7"])
    second = both[both["table"] == "alpha_dependence"]
    assert (len(second), int(second["differs"].sum())) == (10, 6)
    assert second["utility_gap"].max() == pytest.approx(0.0255)
    assert not both[both["table"] == "top10"]["differs"].any()


def test_means_over_different_grids_are_told_from_the_difference_at_shared_alpha(reported: pd.DataFrame) -> None:
    rows = reported[(reported["pair"] == "A5_A7") & (reported["reported_table"] == "detail")]
    one = next(
        c
        for c in tables.k_comparisons(rows)
        if (c.low_k, c.high_k, c.measure, c.layerwise) == (5, 10, "utility", False)
    )
    assert not one.same_grid and one.shared == (1.0,)
    assert one.own == pytest.approx(0.1452, abs=1e-4) and one.at_shared == pytest.approx(0.0054)


def test_each_runs_safety_tax_is_its_own() -> None:
    best = pd.DataFrame(
        [
            {"method": "linear", "resistance": 0.6, "utility": 0.5},
            {"method": "ties", "resistance": 0.6, "utility": 0.6},
            {"method": "dare_linear", "resistance": 0.1, "utility": 0.5},
        ]
    )
    found = tables.taxes(best, {"resistance": 0.2, "utility": 0.7})
    assert list(found["tax"])[:2] == pytest.approx([0.5, 0.25])
    assert found["tax_status"].iloc[2] == "dominated" and pd.isna(found["tax"].iloc[2])
