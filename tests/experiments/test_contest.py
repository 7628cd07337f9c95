"""The contest of all methods, by one plan that goes on where it was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sstmerge_core import catalog, cli, experiments, methods
from sstmerge_core.analysis.best import over_seeds
from sstmerge_core.analysis.contest import Rule
from sstmerge_core.builder import preflight
from sstmerge_core.errors import Cancelled, RecipeError
from sstmerge_core.experiments import choice, contest
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace
from tests.tiny_models import make_adapter

NAMES = ["linear", "dare_linear", "average"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, tiny_base, tiny_pair) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("contest") / "workspace").create()
    catalog.add(workspace, tiny_pair[0], "U", "utility", "facts")
    catalog.add(workspace, tiny_pair[1], "S", "safety")
    for name, role, suite, seed in (("U7", "utility", "facts", 3), ("S7", "safety", "", 4)):
        folder = make_adapter(tiny_base, tmp_path_factory.mktemp("seed") / name, seed, target_modules=["v_proj"])
        catalog.add(workspace, folder, name, role, suite)
    return workspace


@pytest.fixture(scope="module")
def settings(tiny_base) -> contest.ContestPlan:
    return contest.ContestPlan(
        base=str(tiny_base),
        n=3,
        n_selection=2,
        count=3,
        screen=1,
        pairs=[("U", "S")],
        methods=NAMES,
        others={7: {"U": "U7", "S": "S7"}},
        goal="sum",  # a random model keeps no utility
    )


@pytest.fixture(scope="module", autouse=True)
def short_answers():
    """Answers of at most three tokens, and screening of two prompts a suite."""
    made = preflight.bundled.suite
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            preflight.bundled, "suite", lambda *own, **more: made(*own, **more).model_copy(update={"max_new_tokens": 3})
        )
        yield


@dataclass
class Stopped:
    """A contest that was stopped in the midst of its test, what was planned before, then and after, and its end."""

    before: list[experiments.Step]
    midway: list[experiments.Step]
    after: list[experiments.Step]
    kept: dict[Path, int]
    """Event files of the runs that were finished when it was stopped, and when these were written"""
    result: experiments.Result


@pytest.fixture(scope="module")
def told(workspace, settings) -> Stopped:
    def steps() -> list[experiments.Step]:
        return experiments.steps(workspace, "contest", settings, device="cpu")[0]

    def enough() -> bool:
        return any("test" in splits(folder) for folder in workspace.runs.glob("*") if last_status(folder) == "finished")

    before = steps()
    with pytest.raises(Cancelled):
        experiments.run(workspace, "contest", settings, should_cancel=enough, device="cpu")
    midway = steps()
    written = {path: path.stat().st_mtime_ns for path in workspace.runs.glob("*/events.jsonl")}
    kept = {path: at for path, at in written.items() if last_status(path.parent) == "finished"}
    result = experiments.run(workspace, "contest", settings, device="cpu")
    return Stopped(before, midway, steps(), kept, result)


def splits(folder) -> set[str]:
    started = next((event for event in read_events(folder) if event["event"] == "run_started"), None)
    return {suite["split"] for suite in started["recipe"]["evaluation"]["suites"]} if started else set()


def test_every_method_is_screened_alike_and_its_best_is_answered_on_selection(told, workspace):
    screened, answered = told.result.table("screened").rows, told.result.table("answered").rows
    assert [row["method"] for row in screened] == ["linear"] * 3 + ["dare_linear"] * 3 + ["average"]
    assert [row["method"] for row in answered] == NAMES  # one of each, though one has but one setting
    assert [row["parameters"] for row in screened if row["answered"]] == [row["parameters"] for row in answered]
    assert all({"refusal_nll", "kl_to_utility"} <= set(row) for row in screened)
    assert all(splits(workspace.run(row["run_id"])) == {"selection"} for row in answered)


def test_what_was_chosen_is_told_over_all_seeds_with_the_parents_beside(told, workspace):
    rows, runs = told.result.table("contest").rows, told.result.table("runs").rows
    entrants = {*NAMES, "U alone", "S alone", "Base model"}
    assert {row["method"] for row in rows} == entrants and len(rows) == len(entrants)
    assert {(row["method"], row["seed"]) for row in runs} == {(name, seed) for name in entrants for seed in (42, 7)}
    assert all(splits(workspace.run(row["run_id"])) == {"test"} for row in runs)
    by_method = {row["method"]: row for row in rows}
    for figure in ("resistance", "over_refusal", "utility"):
        for name in entrants:
            own = [row[figure] for row in runs if row["method"] == name]
            assert by_method[name][figure] == pytest.approx(sum(own) / 2)
            assert by_method[name][f"{figure}_low"] <= by_method[name][figure] <= by_method[name][f"{figure}_high"]
    assert by_method["linear"]["settings"] == 3 and by_method["average"]["settings"] == 1
    (only,) = told.result.analysis["contests"].values()
    assert only["seeds"] == [42, 7] and only["best_method"] is None
    assert told.result.findings[0].startswith("U_S: No winner")


def test_a_contest_that_was_stopped_goes_on_where_it_was(told):
    assert told.kept and all(path.stat().st_mtime_ns == at for path, at in told.kept.items())


def test_a_plan_says_what_is_left_and_that_nothing_is_when_all_is_done(told):
    assert [one.what for one in told.before] == [
        "U_S: screen",
        "U_S: answer on selection",
        "U_S: tell on test, seed 42",
        "U_S: tell on test, seed 7",
    ]
    assert [(one.left, one.total) for one in told.before] == [(7, 7), (6, 6), (6, 6), (6, 6)]
    # per run 3 suites; the merges' reference is U alone, which is there for itself
    assert [one.answers for one in told.before] == [0, 6 * 3 * 2, 6 * 3 * 3, 6 * 3 * 3]
    assert all(one.seconds > 0 for one in told.before)
    assert [one.left for one in told.midway][:2] == [0, 0] and 0 < told.midway[2].left < 6
    assert [(one.left, one.answers, one.seconds) for one in told.after] == [(0, 0, 0.0)] * 4


def test_further_seeds_of_bundled_adapters_are_planned_with_their_training(workspace, tiny_base):
    own = contest.ContestPlan(base=str(tiny_base), pairs=[("A5", "A7")], methods=["average"], retrain=[43])
    steps = contest.steps(experiments.Lab(workspace, own, "cpu"), own)
    trained = [(one.what, one.left) for one in steps if one.kind == "train"]
    assert trained == [("train A5 with seed 43", 1), ("train A7 with seed 43", 1)]
    assert [one.left for one in steps if "on test" in one.what] == [4, 4]
    other = own.model_copy(update={"pairs": [("U", "S")]})
    with pytest.raises(RecipeError, match="only bundled adapters can be trained again"):
        contest.steps(experiments.Lab(workspace, other, "cpu"), other)


def test_the_command_stops_after_its_budget_and_says_what_is_left_without_computing(
    workspace, tiny_base, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    path = tmp_path / "plan.yaml"
    fields: dict[str, Any] = {"base": str(tiny_base), "n": 2, "n_selection": 2, "count": 1, "screen": 0, "retrain": []}
    path.write_text(experiments.write(contest.ContestPlan(**fields, pairs=[("U", "S")], methods=["average"])))
    runs = sorted(workspace.runs.iterdir())
    given = ["experiment", "contest", "--recipe", str(path), "--device", "cpu"]
    assert cli.main([*given, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "U_S: tell on test, seed 42" in said and "Left: " in said and "minutes" in said
    assert sorted(workspace.runs.iterdir()) == runs
    assert cli.main([*given, "--budget-minutes", "1e-9"]) == 0
    assert "Stopped after 1e-09 minutes" in capsys.readouterr().out
    assert cli.main(given) == 0
    said = capsys.readouterr().out
    assert "U_S: Average was not told: it has no balanced score" in said and "not measured at every seed" in said
    assert "U_S: Nothing can be told" in said
    assert cli.main(["experiment", "alpha-k", "--dry-run"]) == 2
    with pytest.raises(SystemExit):
        cli.main([*given, "--budget-minutes", "0"])


def test_only_the_best_on_selection_are_finalists_where_there_is_no_room_for_all():
    def recipe(run_id: str) -> Any:
        return SimpleNamespace(run_id=run_id)

    def outcome(resistance: float) -> dict[str, Any]:
        return {"resistance": resistance, "over_refusal": 0.1, "utility": 0.5}

    found = choice.Searched({}, {"utility": recipe("U")}, {"a": outcome(0.2), "b": outcome(0.9), "c": outcome(0.5)})
    found.outcomes["U"] = {"utility": 0.5}
    chosen: Any = {name: ({}, recipe(name)) for name in "abc"}
    two = contest.ContestPlan(finalists=2)
    assert contest.finalists(found, chosen, two) == (["b", "c"], ["a"])
    assert contest.finalists(found, chosen, contest.ContestPlan()) == (["a", "b", "c"], [])


def test_everyone_takes_part_who_merges_a_utility_with_a_safety_adapter():
    names = contest.entrants()
    assert {"linear", "ties", "sst_signed", "sst_core", "safe_delta"} <= set(names)
    assert not {"resta", "base_interpolation"} & set(names)
    assert all(methods.get(name).family != "Reference" for name in names)


def test_a_method_gets_no_more_settings_for_what_it_wants_varied_itself():
    for name in contest.entrants():
        drawn = choice.drawn_for(name, Rule(6))
        parameters = {own.name for own in methods.get(name).parameters}
        assert len(drawn) == (6 if "alpha" in parameters else 1), name
        for parameter, values in methods.get(name).contested.items():
            assert parameter in parameters and {point[parameter] for point in drawn} <= set(values)
            for value in values:
                methods.get(name).complete({parameter: value})


def test_an_interval_over_seeds_and_prompts_is_wider_than_either():
    generator = np.random.default_rng(0)
    blocks = pd.DataFrame({"a": [0.5, 0.6, 0.7], "b": [0.3, 0.2, 0.4]}, index=[1, 2, 3])
    prompts = generator.normal(0, 0.05, (4000, 2)) + blocks.mean().to_numpy()
    still = pd.DataFrame({name: [blocks[name].mean()] * 3 for name in blocks})

    def width(blocks: pd.DataFrame, prompts: Any) -> float:
        moved = over_seeds(blocks, prompts, 100)[1]
        assert np.allclose(moved.mean(axis=0), blocks.mean(), atol=0.01)
        return float(np.ptp(np.quantile(moved[:, 0], [0.025, 0.975])))

    fixed = np.tile(blocks.mean().to_numpy(), (4000, 1))
    both, seeds, drawn = width(blocks, prompts), width(blocks, fixed), width(still, prompts)
    assert both > max(seeds, drawn) and both < seeds + drawn
    assert over_seeds(blocks, prompts, 100)[0].intervals["method"].tolist() == ["a", "b"]
