from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest

from sstmerge_core import catalog, cli, experiments, jobs
from sstmerge_core.builder import preflight
from sstmerge_core.builder.preflight import Options
from sstmerge_core.demo import adapters as demo
from sstmerge_core.errors import Cancelled, DataError, JobError, RecipeError
from sstmerge_core.experiments import choice, interference, pre_post
from sstmerge_core.experiments.safety_tax import _sentence
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace
from tests.there import there

COMMON: dict[str, Any] = {"n": 3, "n_selection": 2}
# a random model keeps no utility
GRID: dict[str, Any] = {"count": 1, "extend": 0, "ks": [2], "layerwise": [False], "goal": "sum"}
CURVE: dict[str, Any] = {"count": 2}


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    """Answers of at most three tokens."""
    made = preflight.bundled.suite
    monkeypatch.setattr(
        preflight.bundled,
        "suite",
        lambda *own, **more: made(*own, **more).model_copy(update={"max_new_tokens": 3}),
        raising=True,
    )


@pytest.fixture
def workspace(tmp_path, tiny_base, tiny_pair) -> Workspace:
    workspace = Workspace(tmp_path / "workspace").create()
    catalog.add(workspace, tiny_pair[0], "U", "utility", "facts")
    catalog.add(workspace, tiny_pair[1], "S", "safety")
    return workspace


@pytest.fixture
def few_facts(monkeypatch):
    """The bundled facts of the first topics only."""
    all_rows = demo.rows

    def rows(names, split):
        topics = list(dict.fromkeys(row["topic"] for row in all_rows(("facts",), "test")))[:3]
        return [row for row in all_rows(("facts",), split) if row["topic"] in topics]

    monkeypatch.setattr(demo, "rows", rows)
    settings = demo.ADAPTERS["A5"].settings.model_copy(update={"epochs": 1})
    adapter = demo.ADAPTERS["A5"]
    monkeypatch.setitem(demo.ADAPTERS, "A5", type(adapter)(**vars(adapter) | {"settings": settings}))


def run(workspace, name, base, **settings):
    return experiments.run(workspace, name, experiments.get(name).read({"base": str(base), **COMMON, **settings}))


def every_row_leads_to_finished_runs(workspace, result):
    for table in result.tables:
        for row in table.rows:
            ids = [row["run_id"]] if "run_id" in row else row.get("run_ids", [])
            assert all(last_status(workspace.run(one)) == "finished" for one in ids)
    assert result.run_ids


def split_of(workspace, run_id):
    started = next(event for event in read_events(workspace.run(run_id)) if event["event"] == "run_started")
    return {suite["split"] for suite in started["recipe"]["evaluation"]["suites"]}


def test_every_method_gets_as_many_settings_and_the_finalists_are_measured_on_test(workspace, tiny_base):
    result = run(
        workspace,
        "alpha-k",
        tiny_base,
        **GRID | {"count": 2, "layerwise": [False, True]},
        pairs=[["U", "S"]],
        methods=["linear", "dare_linear", "sst_gevp", "average"],
        seeds=[1, 2],
        goals=["sum", "balanced"],
    )
    every_row_leads_to_finished_runs(workspace, result)
    grid, finals = result.table("grid").rows, result.table("finalists").rows
    # the patch method with k and layerwise gets no more settings than the one with α alone
    assert [row["method"] for row in grid] == ["linear"] * 2 + ["dare_linear"] * 2 + ["sst_gevp"] * 2 + ["average"]
    assert {row["layerwise"] for row in grid if row["method"] == "sst_gevp"} == {False, True}
    by_sum = [row for row in finals if row["goal"] == "sum"]
    assert [(row["method"], row.get("seed")) for row in by_sum] == [
        ("linear", None),
        ("dare_linear", 1),
        ("dare_linear", 2),
        ("sst_gevp", None),
        ("average", None),
        ("U alone", None),
        ("S alone", None),
        ("Base model", None),
    ]
    assert {split for row in grid for split in split_of(workspace, row["run_id"])} == {"selection"}
    assert {split for row in finals for split in split_of(workspace, row["run_id"])} == {"test"}
    by_linear = {row["alpha"]: row["sum"] for row in grid if row["method"] == "linear"}
    chosen = next(row["alpha"] for row in by_sum if row["method"] == "linear")
    assert by_linear[chosen] == max(by_linear.values())
    assert result.analysis["rules"]["U_S"][0]["count"] == 2
    before = {path: path.stat().st_mtime_ns for path in workspace.runs.glob("*/events.jsonl")}
    again = experiments.run(workspace, "alpha-k", experiments.get("alpha-k").read(result.settings))
    assert again.tables == result.tables and again.analysis == result.analysis
    assert before == {path: path.stat().st_mtime_ns for path in workspace.runs.glob("*/events.jsonl")}


def test_where_a_best_lies_at_the_edge_every_method_gets_as_many_settings_more(workspace, tiny_base):
    settings = choice.ContestSettings(**GRID | {"count": 2, "extend": 1}, base=str(tiny_base), **COMMON)
    lab = experiments.Lab(workspace, settings)
    names = ["linear", "task_arithmetic"]
    found = choice.search(lab, [lab.adapter("U")], lab.adapter("S"), names, settings)
    # of two values each is an edge, so a second round is due: linear goes to 1 at most, the strength on or between
    assert len(found.rules) == 2
    assert {name: len(own) for name, own in found.grid.items()} == {"linear": 4, "task_arithmetic": 4}
    assert all(len(set(found.alphas(name))) == 4 for name in names) and max(found.alphas("linear")) <= 1.0


def test_a_contest_takes_a_task_that_is_a_file_of_ones_own(workspace, tiny_base, tmp_path):
    rows = [{"id": f"q{n}", "prompt": f"Question {n}?", "response": "Yes.", "split": "test"} for n in range(4)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    catalog.change(workspace, catalog.find(workspace, "U").sha256, suite=str(path))
    lab = experiments.Lab(workspace, experiments.get("safety-tax").read({"base": str(tiny_base), **COMMON}))
    alone = choice.parents(lab, [lab.adapter("U")], lab.adapter("S"), "test")
    assert {there(recipe.evaluation).suites[-1].name for recipe in alone.values()} == {"mine"}


def test_a_goal_or_a_range_that_is_none_is_refused_by_name():
    with pytest.raises(RecipeError, match="unknown goal 'selective'"):
        experiments.get("alpha-k").read({"goals": ["selective"]})
    with pytest.raises(RecipeError, match="the smaller first"):
        experiments.get("alpha-k").read({"strengths": [2.0, 1.0]})
    with pytest.raises(RecipeError, match="average has no α"):
        experiments.get("safety-tax").read({"methods": ["average"]})


def test_a_tax_whose_interval_has_no_upper_end_is_said_with_infinity():
    row: dict[str, Any] = {"at": 0.5, "n": 64, "tax_low": 0.163, "tax_high": None}
    rows = [row | {"method": "linear", "tax": 0.567}, row | {"method": "ties", "tax": 0.2, "tax_low": None}]
    said = _sentence("U_S", 0.5, rows)
    assert "Linear 0.57 (0.16 to ∞)" in said and "TIES 0.20, Linear" in said
    assert "no method reaches it" in _sentence("U_S", 0.5, [row | {"method": "linear", "tax": None}])


def test_safety_tax_compares_with_the_adapter_alone(workspace, tiny_base):
    result = run(workspace, "safety-tax", tiny_base, **CURVE, pairs=[["U", "S"]], methods=["linear"], at=[0.5])
    every_row_leads_to_finished_runs(workspace, result)
    rows = {row["model"]: row for row in result.table("tax").rows}
    assert list(rows)[:3] == ["U alone", "S alone", "Base model"] and len(rows) == 5
    assert rows["U alone"]["status"] == "reference" and rows["U alone"]["utility_n"] == 3
    matched = result.table("matched").rows
    assert [(row["method"], row["at"], row["tax"]) for row in matched] == [("linear", 0.5, None)]  # it refuses nothing


def test_baselines_are_compared_over_training_seeds(workspace, tiny_base):
    result = run(
        workspace,
        "baselines",
        tiny_base,
        **GRID,
        utility="U",
        safety="S",
        others={7: ["S", "U"]},
        methods=["linear", "dare_linear"],
    )
    every_row_leads_to_finished_runs(workspace, result)
    entrants = ("linear", "dare_linear", "U alone", "S alone", "Base model")
    assert {(row["method"], row["seed"]) for row in result.table("runs").rows} == {
        (name, seed) for name in entrants for seed in (42, 7)
    }
    counted = {row["method"]: row["n"] for row in result.table("summary").rows}
    assert counted == dict.fromkeys(("linear", "dare_linear"), 2) | {
        name: counted[name] for name in counted if name not in ("linear", "dare_linear")
    }
    assert "best_method" in result.analysis


def test_only_bundled_adapters_can_be_trained_again(workspace, tiny_base):
    with pytest.raises(RecipeError, match="only bundled adapters can be trained again"):
        run(workspace, "baselines", tiny_base, **GRID, utility="U", safety="S", methods=["linear"])


def test_retention_is_measured_on_every_experts_own_questions(workspace, tiny_base, few_facts):
    result = run(
        workspace,
        "interference",
        tiny_base,
        counts=[2, 3],
        safety="S",
        methods={
            "linear": {"alpha": 0.5},  # one setting needs no list
            "sst_gevp": [{"alpha": 1.0, "k": 2, "experts": experts} for experts in ("sum", "mean")],
        },
        rank=2,
        epochs=1,
    )
    every_row_leads_to_finished_runs(workspace, result)
    settings = [("base", None), ("adapter", "S"), ("linear", None)]
    settings += [("sst_gevp", "experts=sum"), ("sst_gevp", "experts=mean")]
    assert [(row["experts"], row["method"], row["parameters"]) for row in result.table("retention").rows] == [
        (count, *setting) for count in (2, 3) for setting in settings
    ]
    assert "nothing to retain" in result.findings[0]  # a random model knows nothing
    assert len(result.table("experts").rows) == 3
    row = result.table("retention").rows[0]
    assert row["utility_n"] == 10 and row["retention_n"] <= 2


def experts(*, n: int = 12) -> dict[str, dict[str, float]]:
    """Experts' own scores on five questions each."""
    generator = np.random.default_rng(1)
    return {
        f"w{world}": {f"w{world}-{question}": float(generator.uniform(0.6, 1.0)) for question in range(5)}
        for world in range(n)
    }


def test_retention_is_a_share_of_the_experts_own_utility_by_expert():
    alone = experts()
    own = interference._Own(alone)
    questions = {question: score for scores in alone.values() for question, score in scores.items()}
    assert own.retention(questions)["retention"] == pytest.approx(1.0)
    # one expert's five questions are lost or kept together
    lost = {question: score * (int(question[1:].split("-")[0]) % 2) for question, score in questions.items()}
    found = own.retention(lost)
    assert found["retention_n"] == 12 and found["retention_low"] < found["retention"] < found["retention_high"]
    assert found["retention_high"] - found["retention_low"] > 0.4
    missing = {question: score for question, score in questions.items() if question != "w0-0"}
    assert own.retention(missing)["retention"] is None


def test_a_merge_that_retains_most_is_best_only_beyond_chance():
    alone = experts()
    own = interference._Own(alone)
    questions = {question: score for scores in alone.values() for question, score in scores.items()}
    generator = np.random.default_rng(2)
    noisy = {
        name: {question: score * generator.uniform(0.4, 0.6) for question, score in questions.items()} for name in "ab"
    }
    titles = {"a": "Linear", "b": "TIES", "c": "Task Arithmetic"}
    none = there(own.best(noisy, titles))
    assert none.best is None and none.sentence.startswith("No winner: the differences are within noise")
    better = {question: 0.95 * score for question, score in questions.items()}
    clear = there(own.best(noisy | {"c": better}, titles))
    assert clear.best == "c" and "Task Arithmetic is best" in clear.sentence


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"linaer": {"alpha": 0.5}}, "no such merge method. Did you mean linear"),
        ({"ties": [{"alpha": 0.5, "densty": 0.2}]}, "densty.*Did you mean density"),
        ({"ties": [], "linear": {}}, "ties has no setting"),
    ],
)
def test_methods_that_cannot_be_used_are_named_before_any_expert_is_trained(given, said):
    with pytest.raises(RecipeError, match=said):
        experiments.get("interference").read({"methods": given})


def test_worlds_keep_learning_fisher_and_test_apart():
    for topic, rows in interference._worlds():
        prompts = {
            split: {row["prompt"] for row in rows if row["split"] == split} for split in ("train", "fisher", "test")
        }
        assert {split: len(found) for split, found in prompts.items()} == {"train": 10, "fisher": 5, "test": 5}, topic
        assert not prompts["train"] & prompts["fisher"] and not prompts["test"] & (prompts["train"] | prompts["fisher"])


def test_before_and_after_tuning_are_merged_on_the_aligned_base(workspace, tiny_base, few_facts):
    safety = catalog.find(workspace, "S")
    catalog.change(workspace, safety.sha256, suite="harmful")  # as the bundled safety adapters have it
    result = run(workspace, "pre-post", tiny_base, safety="S", seeds=[1, 2], weights=[0.5], goal="sum")
    every_row_leads_to_finished_runs(workspace, result)
    rows = {row["model"]: row for row in result.table("summary").rows}
    assert list(rows) == ["Before tuning", "After tuning", "Linear", "Base SLERP", "DARE", "Model Stock"]
    assert rows["After tuning"]["seeds"] == 2 and rows["Model Stock"]["seeds"] == 1


def test_an_adapter_that_changes_nothing_leaves_the_model_as_it_is(workspace, tiny_base, tiny_pair):
    lab = experiments.Lab(workspace, experiments.get("pre-post").read({"base": str(tiny_base)}))
    base, like = catalog.base_at(tiny_base), catalog.find(workspace, "U")
    untuned = pre_post._nothing(lab, base, like)
    from sstmerge_core import adapters
    from sstmerge_core.merge import merge

    factors = [adapters.read(one.path).load("cpu") for one in (like, untuned)]
    merged = merge(factors, "linear", {"alpha": 0.25}, identities=[like.sha256, untuned.sha256])
    for name, own in factors[0].items():
        wanted = 0.75 * own.scaling * own.b @ own.a
        assert float((merged.modules[name].delta() - wanted).norm()) <= 1e-5 * float(wanted.norm())


def test_an_experiment_that_is_stopped_goes_on_where_it_was(workspace, tiny_base):
    settings = experiments.get("safety-tax").read(
        {"base": str(tiny_base), **COMMON, **CURVE, "pairs": [["U", "S"]], "methods": ["linear", "task_arithmetic"]}
    )
    with pytest.raises(Cancelled):
        experiments.run(
            workspace,
            "safety-tax",
            settings,
            should_cancel=lambda: any(last_status(folder) == "finished" for folder in workspace.runs.iterdir()),
        )
    finished = {path.parent: path.stat().st_mtime_ns for path in workspace.runs.glob("*/events.jsonl")}
    finished = {folder: at for folder, at in finished.items() if last_status(folder) == "finished"}
    assert finished and not experiments.results(workspace, "safety-tax")
    experiments.run(workspace, "safety-tax", settings)
    assert all((folder / "events.jsonl").stat().st_mtime_ns == at for folder, at in finished.items())
    assert len(experiments.results(workspace, "safety-tax")) == 1


def test_the_contest_names_no_winner_without_a_shown_difference(workspace, tiny_base):
    lab = experiments.Lab(workspace, experiments.get("safety-tax").read({"base": str(tiny_base), **COMMON}))
    utility, safety = lab.adapter("U"), lab.adapter("S")
    recipes = {name: lab.merge([utility], safety, name, {}) for name in ("linear", "average")}
    alone = choice.parents(lab, [utility], safety, "test")
    outcomes = lab.measure([*recipes.values(), *alone.values()], "testing")
    for goal in ("sum", "safety_first"):
        known = outcomes | {alone["utility"].run_id: outcomes[alone["utility"].run_id] | {"utility": 0.1}}
        found = choice.contest(workspace, recipes, alone, known, goal)
        assert found["best_method"] is None and len(found["not_shown_worse"]) == 4, goal
        said = choice.verdict(found, "Here")
        assert "No winner" in said and "not shown better than" in said
        assert found["n"] == {"resistance": 3, "over_refusal": 3, "utility": 3}
    nothing = choice.contest(workspace, recipes, alone, outcomes, "balanced")
    assert nothing["leader"] is None and "nothing was measured" in choice.verdict(nothing, "Here")


def test_a_contest_over_seeds_without_a_score_says_so(workspace, tiny_base):
    settings = GRID | {"goal": "balanced", "utility": "U", "safety": "S", "others": {7: ["S", "U"]}}
    result = run(workspace, "baselines", tiny_base, **settings, methods=["linear"])
    assert result.analysis["best_method"] is None and "nothing was measured" in result.findings[0]


def test_a_contest_is_told_on_the_answers_of_its_runs_with_topics_drawn_whole(workspace, tiny_base):
    lab = experiments.Lab(workspace, experiments.get("safety-tax").read({"base": str(tiny_base), "n": 20}))
    utility, safety = lab.adapter("U"), lab.adapter("S")
    one = lab.merge([utility], safety, "linear", {"alpha": 0.2}, Options(n=20))
    outcomes = lab.measure([one], "testing")
    tables, topics = choice.answers(workspace, {"one": one})
    assert {name: len(table) for name, table in tables.items()} == {"resistance": 20, "over_refusal": 20, "utility": 20}
    assert tables["utility"]["one"].mean() == pytest.approx(outcomes[one.run_id]["utility"])
    assert len(topics["utility"]) == 20 and set(topics["utility"]) <= {
        row["topic"] for row in demo.rows(("facts",), "test")
    }


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_written_settings_are_read_again(name):
    chosen = experiments.get(name)
    assert chosen.read(experiments.write(chosen.read())) == chosen.read()


def test_wrong_settings_are_named_all_at_once(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("n: 0\ncount: [a]\nunknown: 1\n")
    with pytest.raises(RecipeError) as caught:
        experiments.get("alpha-k").read(path)
    assert len(caught.value.problems) == 3
    assert all(str(path) in str(problem) for problem in caught.value.problems)
    with pytest.raises(RecipeError, match="Did you mean alpha-k"):
        experiments.get("alphak")


def test_the_command_lists_the_experiments_and_prints_one_result(workspace, tiny_base, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    assert cli.main(["experiment"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in experiments.EXPERIMENTS)
    path = tmp_path / "tax.yaml"
    fields = {"base": str(tiny_base), **COMMON, **CURVE, "pairs": [["U", "S"]], "methods": ["linear"]}
    path.write_text(json.dumps(fields))
    assert cli.main(["experiment", "safety-tax", "--recipe", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["experiment"] == "safety-tax" and "best_method" in found["analysis"]
    assert cli.main(["experiment", "nothing"]) == 2


def test_a_file_that_is_no_result_is_refused_by_name(tmp_path):
    path = tmp_path / "safety-tax-x.json"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"safety-tax-x.json.*is not the result"):
        experiments.load(path)


def test_an_experiment_is_carried_out_by_the_worker(workspace, tiny_base):
    fields = {"base": str(tiny_base), "n": 1, "n_selection": 1, **CURVE, "pairs": [["U", "S"]], "methods": ["linear"]}
    settings = experiments.get("safety-tax").read(fields).model_dump(mode="json")
    given = {"name": "safety-tax", "settings": settings}
    job_id = jobs.submit(workspace, [], name="Safety Tax", kind="experiment", experiment=given)
    ended = jobs.wait(workspace, job_id, timeout=300)
    assert ended.state == "done", jobs.log_tail(workspace, job_id)
    (path,) = experiments.results(workspace, "safety-tax")
    assert experiments.load(path).settings == settings
    with pytest.raises(JobError, match="name and settings"):
        jobs.submit(workspace, [], name="Safety Tax", kind="experiment")


def test_a_search_measures_its_budget_once_and_tests_the_front(workspace, tiny_base):
    fields = {"utility": "U", "safety": "S", "methods": ["linear", "sst_gevp", "ties"], "trials": 5, "finalists": 2}
    result = run(workspace, "search", tiny_base, **fields)
    every_row_leads_to_finished_runs(workspace, result)
    trials = result.table("trials").rows
    assert len({row["run_id"] for row in trials}) == 5
    assert {split for row in trials for split in split_of(workspace, row["run_id"])} == {"selection"}
    finals = result.table("finalists").rows
    assert 1 <= len(finals) <= 2
    assert {split for row in finals for split in split_of(workspace, row["run_id"])} == {"test"}
    by_id = {row["run_id"]: row for row in trials}
    for one in result.analysis["front"]:
        own = by_id[one]
        better = [
            row
            for row in trials
            if row["resistance"] >= own["resistance"]
            and row["utility"] > own["utility"]
            and row["over_refusal"] <= own["over_refusal"]
        ]
        assert not better
    again = experiments.run(workspace, "search", experiments.get("search").read(result.settings))
    assert again.tables == result.tables, "the sampler asks for the same points again"


def test_a_search_without_optuna_says_how_to_get_it_before_anything_is_computed(workspace, tiny_base, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r'Optuna: is not installed. Install it: pip install "sstmerge\[search\]"'):
        run(workspace, "search", tiny_base, utility="U", safety="S")
    assert not list(workspace.runs.iterdir())


def test_the_prediction_of_a_patch_is_what_its_merge_says_of_itself(workspace, tiny_base):
    lab = experiments.Lab(workspace, experiments.get("search").read({"base": str(tiny_base), **COMMON}))
    utility, safety = lab.adapter("U"), lab.adapter("S")
    recipes = [lab.merge([utility], safety, "sst_shield", {"alpha": alpha, "tau": 5.0}) for alpha in (0.5, 2.0)]
    recipes.append(lab.merge([utility], safety, "linear", {"alpha": 0.0}))
    found = lab.predict(recipes, utility, safety, "predicting")
    assert not any(workspace.runs.iterdir()), "nothing is carried out"
    lab.measure(recipes[:2], "testing")
    for recipe, guess in zip(recipes[:2], found, strict=False):
        rows = [
            row for e in read_events(workspace.run(recipe.run_id)) if e["event"] == "module_stats" for row in e["rows"]
        ]
        own = {row["stat"]: row["value"] for row in rows if row["module"] == ""}
        assert guess.benign_cost == pytest.approx(own["benign_cost"], rel=1e-4, abs=1e-9)
        energy = own["kept_harm_energy"] * recipe.parameters["alpha"] ** 2
        assert guess.kept_harm_energy == pytest.approx(energy, rel=1e-4)
    assert found[2].kept_harm_energy < 1e-10 and abs(found[2].benign_cost) < 1e-6
