"""Screening: given texts' losses, which settings are chosen by them, and how far they agree with what is measured."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sstmerge_core import catalog, methods, metrics
from sstmerge_core.analysis import screening
from sstmerge_core.analysis.screening import Screening, Setting
from sstmerge_core.builder import preflight
from sstmerge_core.cli import main
from sstmerge_core.evaluate import forced
from sstmerge_core.models.resident import ResidentModel
from sstmerge_core.models.supervised import Example
from sstmerge_core.recipe import record
from sstmerge_core.runs import screen
from sstmerge_core.runs.session import Session
from sstmerge_core.store.events import last_status
from sstmerge_core.suites import twins
from sstmerge_core.workspace import Workspace

ROWS = [("w1 w2 w3", "w4 w5"), ("w6", "w7 w8 w9 w10"), ("w1 w1 w2 w2 w3 w3", "w11"), ("w20 w21", "w22 w23 w24")]
EXAMPLES = [Example(*row) for row in ROWS]


def rows_of(kind: str, responses: bool = True) -> list[dict[str, str]]:
    found = []
    for split, first in (("selection", 30), ("test", 40), ("fisher", 50)):
        for index in range(4):
            row = {"id": f"{kind}-{split}-{index}", "topic": f"{split}-{index}", "split": split}
            row |= {"prompt": f"w{first + index} w{ord(kind[0]) % 30}"}
            row |= {"response": f"w{60 + index} w{70 + index} w{len(kind)}" if responses else ""}
            found.append(row | ({"twin_of": f"harmful-{split}-{index}"} if kind == "near" else {}))
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_base, tiny_pair) -> tuple[Workspace, dict[str, Any], preflight.Options]:
    root = tmp_path_factory.mktemp("screening")
    workspace = Workspace(root / "w").create()
    catalog.add_base(workspace, tiny_base)
    for path, name, role in zip(tiny_pair, ("U", "S"), ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=name, role=role)
    paths = {}
    for kind in ("harmful", "near", "tasks"):
        paths[kind] = root / f"{kind}.jsonl"
        paths[kind].write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind)))
    options = preflight.Options(
        n=3, harmful_suite=str(paths["harmful"]), benign_suite=str(paths["near"]), utility_suite=str(paths["tasks"])
    )
    pair = {"base": catalog.bases(workspace)[-1], "utility": catalog.find(workspace, "U")}
    pair = {"base": next(one for one in catalog.bases(workspace) if one.path == tiny_base), **pair} | pair
    return workspace, pair | {"safety": catalog.find(workspace, "S")}, options


def planned(inputs, keep: int | None, alphas=(0.0, 0.5, 1.0)) -> preflight.SweepPlan:
    workspace, pair, options = inputs
    own = {name: pair[name] for name in ("base", "utility", "safety")}
    how = Screening(keep, 3) if keep is not None else None
    return preflight.plan_sweep(workspace, **own, methods=["linear"], alphas=alphas, options=options, screening=how)


@pytest.fixture(scope="module")
def resident(tiny_base) -> ResidentModel:
    return ResidentModel.load(tiny_base, "float32", "cpu")


def log_probabilities(model, tokenizer, example) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one response, token by token and without a batch."""
    ids, start = forced.encode_rows(tokenizer, [example], 512)[0]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, start - 1 : -1]
    return torch.log_softmax(logits.double(), -1), torch.tensor(ids[start:])


def test_losses_are_those_of_each_response_alone(resident) -> None:
    found = forced.losses(resident.model, resident.tokenizer, EXAMPLES)
    for example, loss in zip(EXAMPLES, found, strict=True):
        own, said = log_probabilities(resident.model, resident.tokenizer, example)
        assert loss == pytest.approx(float(-own.gather(1, said[:, None]).mean()), abs=1e-5)


@pytest.mark.parametrize("likeliest", [512, 7])
def test_the_divergence_is_that_of_the_whole_vocabulary_or_a_little_less(
    resident, tiny_pair, monkeypatch, likeliest: int
) -> None:
    from sstmerge_core import adapters
    from sstmerge_core.fisher import expansion

    monkeypatch.setattr(forced, "LIKELIEST", likeliest)
    model, tokenizer = resident.model, resident.tokenizer
    before = [log_probabilities(model, tokenizer, example)[0] for example in EXAMPLES]
    kept = forced.distributions(model, tokenizer, EXAMPLES)
    assert forced.compared(model, tokenizer, EXAMPLES, kept)[1] == pytest.approx([0.0] * 4, abs=1e-6)
    resident.set_delta(expansion.deltas([adapters.read(tiny_pair[0]).load()], [1.0]))
    try:
        lost, moved = forced.compared(model, tokenizer, EXAMPLES, kept)
        assert lost == pytest.approx(forced.losses(model, tokenizer, EXAMPLES), abs=1e-5)
        for example, old, divergence in zip(EXAMPLES, before, moved, strict=True):
            new = log_probabilities(model, tokenizer, example)[0]
            whole = float((old.exp() * (old - new)).sum(1).mean())
            assert whole > 0.01, "the adapter moves the model"
            exact = likeliest > old.shape[1]
            assert divergence == pytest.approx(whole, rel=1e-4) if exact else 0 <= divergence <= whole + 1e-6
    finally:
        resident.set_delta(None)


def test_a_single_long_batch_is_cut_where_its_logits_would_not_fit(resident, monkeypatch) -> None:
    whole = forced.compared(
        *(model := (resident.model, resident.tokenizer)), EXAMPLES, forced.distributions(*model, EXAMPLES)
    )
    sizes: list[int] = []
    collate = forced.collate

    def counted(rows, pad):
        sizes.append(len(rows))
        return collate(rows, pad)

    monkeypatch.setattr(forced, "collate", counted)
    monkeypatch.setattr(forced, "LARGEST_LOGITS", 1)
    one_by_one = forced.compared(*model, EXAMPLES, forced.distributions(*model, EXAMPLES))
    assert sizes == [1] * 8
    assert one_by_one[0] == pytest.approx(whole[0], abs=1e-5)


def test_harmful_prompts_are_refused_in_their_own_words_and_near_misses_in_their_twins(inputs) -> None:
    recipe = planned(inputs, None).recipes[0]
    assert recipe.evaluation is not None
    harmful, near, task = forced.texts_of(recipe.evaluation.suites, 4)
    assert [one.response for one in harmful.given["refusal"]] == [one.response for one in near.given["refusal"]]
    assert [one.prompt for one in near.given["refusal"]] == [one.prompt for one in near.given["reference"]]
    assert {*harmful.given, *task.given} == {"refusal", "reference"}
    assert all(one.prompt.startswith("w3") for own in (harmful, near, task) for one in next(iter(own.given.values())))


def test_prompts_without_answers_get_the_template_refusal_and_no_helpful_answer(tmp_path) -> None:
    from sstmerge_core.suites import bundled

    suites = []
    for kind, role in (("harmful", "harmful"), ("plain", "benign")):
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind, responses=False)))
        suites.append(bundled.suite(str(path), role, "test", 2))
    harmful, benign = forced.texts_of(suites, 2)
    assert {one.response for one in (*harmful.given["refusal"], *benign.given["refusal"])} == {twins.REFUSAL}
    assert "reference" not in benign.given


def test_every_metric_of_given_texts_is_measured_and_none_on_the_test_split(inputs) -> None:
    workspace, _, _ = inputs
    [found] = screen.screen(planned(inputs, None, (0.5,)).recipes, Session(workspace, "cpu"), 3)
    assert {row["metric"] for row in found.rows} == {one.name for one in metrics.metrics() if one.forced}
    assert all(row["suite"].endswith("(selection)") and row["n"] == 3 for row in found.rows)
    assert {*found.figures} == {*screening.FIGURES}
    near, task = (
        next(row["value"] for row in found.rows if row["metric"] == "answer_nll" and row["suite"].startswith(kind))
        for kind in ("near", "tasks")
    )
    assert near != task and found.figures["answer_nll"] == task


def test_what_was_screened_is_known_and_the_utility_side_has_not_moved_from_itself(inputs, monkeypatch) -> None:
    workspace, _, _ = inputs
    recipes = planned(inputs, None, (0.0, 0.75)).recipes
    first = screen.screen(recipes, Session(workspace, "cpu"), 2)
    assert first[0].figures["kl_to_utility"] == pytest.approx(0.0, abs=1e-5)
    assert first[1].figures["kl_to_utility"] > 0.001
    monkeypatch.setattr(screen, "merge_now", None)
    again = screen.screen(recipes, Session(workspace, "cpu"), 2)
    assert [one.rows for one in again] == [one.rows for one in first]


def test_a_strength_that_is_found_by_generating_is_not_screened_and_generated_all_the_same(inputs) -> None:
    workspace, pair, options = inputs
    given = [pair[name] for name in ("base", "safety")]
    budget = preflight.merge_recipe(given[0], [pair["utility"]], given[1], "sst_budget", {"unit": "percent"}, options)
    assert budget.selection is not None
    [found] = screen.screen([budget], Session(workspace, "cpu"), 2)
    assert found.rows == []
    chosen = screening.choose([found.setting, Setting("b", "linear", "Linear", {"kl_to_utility": 1.0})], Screening(1))
    assert [(one.run_id, one.place, one.generated) for one in chosen.settings] == [
        ("b", 1, True),
        (budget.run_id, None, True),
    ]
    assert "cannot be screened" in chosen.words()


def test_the_best_are_measured_and_the_rest_is_told(inputs, monkeypatch, capsys) -> None:
    workspace, _, _ = inputs
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    plan = planned(inputs, 1)
    assert plan.screening is not None and len(plan.asked) == 3
    found = screen.execute_best(plan.asked, workspace, plan.screening, device="cpu", job_id="a-job")
    generated = [one for one in found.settings if one.generated]
    assert len(generated) == 1 and generated[0].place == 1
    finished = [recipe.run_id for recipe in plan.asked if last_status(workspace.run(recipe.run_id)) == "finished"]
    assert finished == [generated[0].run_id]
    assert screening.load(workspace, "a-job") == found and found.plan.rule == screening.RULE
    noted = record.read(workspace.run(finished[0])).metrics
    assert ("kl_to_utility", "tasks (selection)", "teacher_forcing") in noted
    again = screen.execute_best(plan.asked, workspace, plan.screening, device="cpu", job_id="a-job")
    assert again == found, "asked for again, the same are chosen"
    name = plan.asked[0].pair
    assert main(["screen", "--pair", name, "--n", "3", "--device", "cpu"]) == 0
    assert "over 1 setting" in capsys.readouterr().out
    assert main(["screen", "--pair", "no_such"]) == 6


def test_a_suite_without_selection_rows_is_a_problem_before_anything_is_done(inputs, tmp_path) -> None:
    workspace, pair, options = inputs
    path = tmp_path / "only_test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of("harmful") if row["split"] != "selection"))
    from dataclasses import replace

    there = workspace, pair, replace(options, harmful_suite=str(path))
    [problem] = planned(there, 2).problems
    assert "no rows of the split selection" in problem.fault
    assert not planned(there, None).problems
    assert planned(inputs, 0).problems[0].where == "screening keep=0"


def test_the_worse_of_two_ranks_decides() -> None:
    def one(refusing: float, moved: float) -> dict[str, float]:
        return {"refusal_nll": refusing, "near_refusal_nll": 3.0, "kl_to_utility": moved}

    extremes, middle = [one(0.1, 9.0), one(4.0, 0.0)], one(1.0, 1.0)
    assert screening.order([*extremes, middle])[0] == 2, "neither who only refuses nor who never does"
    assert screening.order([middle, one(0.5, 0.5), one(2.0, 2.0)]) == [1, 0, 2]
    assert screening.order([{"kl_to_utility": 0.0}, middle]) == [1, 0], "what lacks a figure comes last"
    assert screening.order([]) == []


def test_correlation_is_scipys_and_its_interval_covers() -> None:
    draws = np.random.default_rng(3)
    covered, truth = 0, 6 / np.pi * np.arcsin(0.6 / 2)
    for _ in range(400):
        pair = draws.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 40)
        found = screening.rank_correlation(list(pair[:, 0]), list(pair[:, 1]))
        assert found is not None and found.interval is not None
        assert found.rho == pytest.approx(stats.spearmanr(pair).statistic)
        covered += found.interval.low <= truth <= found.interval.high
    assert 0.92 <= covered / 400 <= 0.98
    assert screening.rank_correlation([1, 2], [1, 2]) is None
    assert screening.rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_agreement_is_one_where_screening_orders_as_measuring_does() -> None:
    rows = [
        {"refusal_nll": -s, "resistance": s, "near_refusal_nll": s, "over_refusal": -s, "separation": s}
        | {"discrimination": s, "answer_nll": -s, "kl_to_utility": -s, "utility": s, "place": -s, "balanced": s}
        for s in (0.1, 0.5, 0.3, 0.9, 0.7)
    ]
    found = screening.agreement(rows)
    assert {*found} == {*screening.COMPARED} and all(one.rho == pytest.approx(1.0) for one in found.values())
    assert screening.agreement([row | {"utility": None} for row in rows]).keys() == {
        name for name, (_, measured, _) in screening.COMPARED.items() if measured != "utility"
    }


def test_every_method_can_be_screened_or_says_why_not() -> None:
    assert [one.name for one in methods.methods() if one.measures_budget({"unit": "percent"})] == ["sst_budget"]


def test_a_job_that_screens_plans_for_as_many_runs_as_it_keeps(inputs) -> None:
    from sstmerge_core.jobs.plan import plan_units

    workspace, _, _ = inputs
    recipes = planned(inputs, 1, (0.2, 0.3, 0.4, 0.6)).every
    plan = plan_units(recipes, workspace, keep=2)
    assert len(plan) == 2 and plan[0]["screen"] == 4.0 and "screen" not in plan[1]
