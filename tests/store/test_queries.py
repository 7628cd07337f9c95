from __future__ import annotations

import inspect
import math

import pytest

from sstmerge_core.store import EventWriter, queries
from tests.store.conftest import metric, write_run


def test_the_front_keeps_what_nothing_dominates_and_both_of_two_equal_points(workspace, owner):
    points = {
        "a": (0.9, 0.1),
        "b": (0.5, 0.5),
        "twin": (0.5, 0.5),
        "c": (0.1, 0.9),
        "worse": (0.4, 0.5),
        "low": (0.5, 0.4),
    }
    for name, (safe, useful) in points.items():
        write_run(workspace, name, safe=safe, useful=useful)
    write_run(workspace, "other", safe=0.05, useful=0.05, pair="A6_A7")
    write_run(workspace, "running", safe=1.0, useful=1.0, finish=False)
    owner.ingest()
    front = queries.front(owner.cursor(), sources=["measured"])
    assert set(front.run_id) == {"a", "b", "twin", "c", "other"}


def test_the_leaderboard_shows_the_runs_own_suite_and_the_asr_of_a_judge_that_can_tell(workspace, owner):
    write_run(workspace, "r1")
    with EventWriter(workspace.run("r1")) as events:
        rows = [
            metric("rouge_l", "instructions", 0.99),
            metric("resistance", "harmful", 0.6, judge="another"),
            metric("asr", "harmful", None) | {"status": "judge_cannot_tell"},
            metric("degenerate", "harmful", 0.3),
            metric("degenerate", "all", 0.1),
            metric("over_refusal", "near_miss", 0.2),
        ]
        events.write("metrics", rows=rows)
    owner.ingest()
    (row,) = queries.leaderboard(owner.cursor(), sources=["measured"]).to_dict("records")
    assert (row["resistance"], row["utility"], row["utility_suite"], row["judge"]) == (
        0.5,
        0.5,
        "facts",
        "refusal_regex_v2",
    )
    assert math.isnan(row["asr"]) and row["asr_status"] == "judge_cannot_tell"
    assert (row["degenerate"], row["over_refusal"], row["utility_metric"]) == (0.1, 0.2, "rouge_l")
    assert (row["utility_adapter"], row["safety_adapter"]) == ("A5", "A7")
    with EventWriter(workspace.run("r1")) as events:
        events.write("metrics", rows=[metric("asr", "harmful", 0.25, judge="wildguard")])
    owner.ingest()
    assert queries.leaderboard(owner.cursor(), sources=["measured"]).asr.tolist() == [0.25]


def test_filters_restrict_and_an_empty_filter_finds_nothing(workspace, owner):
    write_run(workspace, "r1", method="linear", alpha=0.2)
    write_run(workspace, "r2", method="ties", alpha=0.1)
    write_run(workspace, "r3", finish=False)
    owner.ingest()
    con = owner.cursor()

    def ids(**filters):
        return set(queries.leaderboard(con, **{"sources": ["measured"], **filters}).run_id)

    assert ids() == {"r1", "r2"}
    assert ids(statuses=None) == {"r1", "r2", "r3"}
    assert ids(methods=["ties"]) == {"r2"} and ids(methods=[]) == set() and ids(pairs=["x' OR 1=1"]) == set()
    assert queries.alpha_curves(con, "A5_A7", sources=["measured"]).alpha.tolist() == [0.2, 0.1]
    assert queries.recent_runs(con).run_id.tolist() == ["r3", "r2", "r1"]
    assert queries.pairs(con)[0] == "A5_A7"


def test_reported_figures_are_shares_and_stay_apart_from_measured_ones(owner):
    con = owner.cursor()
    reported = queries.leaderboard(con, sources=["reported"], pairs=["A5_A7"])
    assert len(reported) and set(reported.reported_table) == {"detail"}
    best = reported[(reported.method == "sst_reported") & (reported.k == 5) & (reported.alpha == 0.1)].iloc[0]
    assert (best.resistance, best.utility, best.utility_suite) == (0.69, 0.7031, "repliqa")
    assert best.label == "SST-Merge k=5 α=0.1" and best.judge == "reported"
    other = queries.leaderboard(con, sources=["reported"], reported_tables=["alpha_dependence", "top10"])
    assert set(other.reported_table) == {"alpha_dependence", "top10"}
    paper = queries.leaderboard(con, pairs=["Llama-3-8B-Instruct · medical"]).set_index("method")
    assert (paper.asr["fine_tuned"], paper.utility["fine_tuned"]) == (0.3006, 0.57)
    assert queries.counts(con) == {"runs": 0, "finished": 0, "adapters": 0, "samples": 0, "reported": 180}
    assert len(queries.recent_runs(con)) == 0


def test_a_run_can_be_followed_down_to_its_answers(workspace, owner):
    write_run(workspace, "r1")
    owner.ingest()
    con = owner.cursor()
    samples = queries.run_samples(con, "r1")
    assert samples.prompt_id.tolist() == ["h1", "h2"] and samples.label.fillna("-").tolist() == ["refusal", "-"]
    assert (
        queries.run_samples(con, "r1", "facts").empty and queries.run_samples(con, "r1", judge="x").label.isna().all()
    )
    assert queries.spectrum(con, "r1").eigenvalue.tolist() == [3.0, 2.0]
    assert queries.module_stats(con, "r1").stat.tolist() == ["cosine"]
    assert queries.run_metrics(con, "r1").metric.tolist() == ["resistance", "rouge_l"]
    assert queries.run(con, "nope") is None


@pytest.mark.parametrize(
    "name", [name for name, f in vars(queries).items() if inspect.isfunction(f) and name[0] != "_"]
)
def test_every_query_answers_on_an_empty_workspace(owner, name):
    function = getattr(queries, name)
    needed = [p for p in list(inspect.signature(function).parameters.values())[1:] if p.default is p.empty]
    arguments = {p.name: ["none"] if "Sequence" in str(p.annotation) else "none" for p in needed}
    function(owner.cursor(), **arguments)


def test_the_schema_lists_tables_and_views_but_not_the_bookkeeping(owner):
    tables = set(queries.schema(owner.cursor())["table"])
    assert {"runs", "metrics", "samples", "leaderboard", "front", "alpha_curves"} <= tables
    assert not {"meta", "ingested"} & tables
