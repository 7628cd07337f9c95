"""Lines of one method are told apart by dash and marker, labels stand where there is room, and few α say so."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sstmerge_core.plots import alpha_curves

KS = ("k=5", "k=20", "k=100")


def made(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with what every row of a leaderboard has."""
    rows = rows.assign(run_id=[f"r{number}" for number in range(len(rows))], source="measured", pair="A5_A7")
    for name in ("resistance", "utility", "over_refusal"):
        rows[f"{name}_low"], rows[f"{name}_high"], rows[f"{name}_n"] = rows[name] - 0.05, rows[name] + 0.05, 72
    return rows


def lines(*, prompts: tuple[int, ...] = (64,), splits: tuple[str, ...] = ("test",), gap: float = 0.2) -> pd.DataFrame:
    """GEVP's lines for each k, number of prompts and split, all over α = 1, 1.5 and 2."""
    found = []
    for place, k in enumerate(KS):
        for n in prompts:
            for split in splits:
                found += [
                    {"label": f"SST-Merge (GEVP) α={alpha} {k}", "alpha": alpha, "prompts": n, "split": split}
                    | {"resistance": 0.2 + gap * place, "utility": 0.5, "over_refusal": np.nan}
                    for alpha in (1.0, 1.5, 2.0)
                ]
    return alpha_curves.with_series(made(pd.DataFrame(found).assign(method="sst_gevp")))


def traces(figure, measure: str = "resistance"):
    return [one for one in figure.data if (one.meta or {}).get("source") and one.meta["measure"] == measure]


def test_the_dash_says_the_parameters_and_the_marker_the_prompts():
    figure = alpha_curves.figure(lines(prompts=(16, 64)), axis="strength")
    found = traces(figure)
    dashes = {(one.name.partition("k=")[2].split()[0]): one.line.dash for one in found}
    assert len(found) == 6 and len(set(dashes.values())) == 3
    marks = {"prompts=16" in one.name: one.marker.symbol for one in found}
    assert marks[True] != marks[False] and len({one.marker.symbol for one in found}) == 2
    assert len({(one.line.dash, one.marker.symbol) for one in found}) == 6, "no two lines look alike"


def test_the_smallest_k_has_the_methods_own_dash_and_splits_have_markers_of_their_own():
    figure = alpha_curves.figure(lines(splits=("test", "selection")), axis="strength")
    own = alpha_curves.style("sst_gevp").dash
    assert {one.line.dash for one in traces(figure) if "k=5 " in f"{one.name} "} == {own}
    assert len({one.marker.symbol for one in traces(figure)}) == 2


def test_in_a_panel_where_the_dash_is_the_measure_markers_tell_the_lines_apart():
    found = traces(alpha_curves.panel(lines()))
    assert len({one.line.dash for one in found}) == 1
    assert len({one.marker.symbol for one in found}) == 3
    assert {one.name for one in found} == set(KS), "the panel's title has the method's name"


def test_names_stand_beside_lines_where_there_is_room_and_nowhere_else():
    def named(rows: pd.DataFrame) -> set[str]:
        figure = alpha_curves.figure(rows, axis="strength", measures=["resistance"])
        return {one.text[0].strip() for one in figure.data if (one.meta or {}).get("note")}

    assert named(lines()) == set(KS)
    crowded = named(lines(prompts=(16, 32, 64), gap=0.0))
    assert crowded < {f"{k} prompts={n}" for k in KS for n in (16, 32, 64)} or not crowded
    ends_early = lines()
    ends_early = ends_early[~(ends_early["series_note"].eq("k=5") & ends_early["alpha"].eq(2.0))]
    assert named(ends_early) == set(KS[1:]), "beside the end of k=5 the others go on"


def test_a_method_of_which_no_line_has_three_values_of_alpha_is_told():
    rows = lines()
    assert alpha_curves.few_values(rows, "method") == []
    assert alpha_curves.few_values(rows[rows["alpha"] < 2.0], "method") == ["sst_gevp"]
    assert alpha_curves.few_values(rows[rows["alpha"].eq(1.0) | rows["series_note"].eq("k=20")], "pair") == []


def test_hovering_a_point_says_what_people_call_its_run():
    rows = lines().assign(own_name=None)
    rows.loc[rows.index[0], "own_name"] = "mine <b>"
    first = next(one for one in traces(alpha_curves.figure(rows, axis="strength")) if one.text)
    assert "<b>mine &lt;b&gt;</b><br>" in first.text and first.hovertemplate.startswith("%{text}<b>")
