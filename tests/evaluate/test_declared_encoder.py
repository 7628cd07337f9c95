"""A suite whose own metric an encoder computes: planned, measured, and read where any utility is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sstmerge_core import catalog
from sstmerge_core.analysis import compare
from sstmerge_core.builder import chosen_suites, preflight
from sstmerge_core.cli import main
from sstmerge_core.errors import DataError, RecipeError
from sstmerge_core.evaluate import encoders
from sstmerge_core.metrics.comparable import evaluation_key
from sstmerge_core.recipe import Recipe, Suite, record
from sstmerge_core.report import points
from sstmerge_core.runs.execute import execute
from sstmerge_core.runs.outcome import outcome
from sstmerge_core.runs.rescore import score_by_encoder
from sstmerge_core.store import Owner, queries
from sstmerge_core.suites import declared, own
from sstmerge_core.workspace import Workspace
from tests.there import there

ROWS = [f"question {n},answer {'ab'[n % 2]} {n}" for n in range(8)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of three layers that knows letters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    letters = [*special.values(), *map(chr, range(33, 127))]
    core = Tokenizer(models.WordLevel({letter: place for place, letter in enumerate(letters)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [(name, letters.index(name)) for name in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(letters), max_position_embeddings=64, intermediate_size=24, **sizes)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def measured(tiny_base: Path, tiny_pair: Any, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two merges, measured with the adapter that they are compared with, on a set that declares BERTScore."""
    folder = tmp_path_factory.mktemp("declared")
    workspace = Workspace(folder / "workspace").create()
    rows = folder / "asked.csv"
    rows.write_text("\n".join(["prompt,response", *ROWS]))
    told = own.OwnSuite("asked", "utility", metric=f"bertscore:{encoder}#2", shares={"test": 1.0}, max_new_tokens=4)
    own.add(workspace, rows, told)
    inputs: Any = {
        "base": catalog.base_at(tiny_base),
        "utility": catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
        "safety": catalog.entry(tiny_pair[1], name="S", role="safety"),
    }
    options = chosen_suites.options(workspace, utility="asked", n=4)
    recipes = []
    for alpha in (0.5, 0.9):
        plan = preflight.plan(workspace, **inputs, method="linear", parameters={"alpha": alpha}, options=options)
        assert not plan.problems
        recipes.append(short(there(plan.recipe)))
    execute(recipes, workspace, device="cpu")
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return SimpleNamespace(workspace=workspace, recipes=recipes, inputs=inputs, options=options)


def short(one: Recipe) -> Recipe:
    evaluation = there(one.evaluation)
    suites = tuple(suite.model_copy(update={"max_new_tokens": 4}) for suite in evaluation.suites)
    return one.model_copy(update={"evaluation": evaluation.model_copy(update={"suites": suites, "batch_size": 4})})


def of_task(recipe: Recipe) -> Suite:
    return next(suite for suite in there(recipe.evaluation).suites if suite.role == "utility")


def test_the_runs_utility_is_what_the_encoder_says_of_each_answer(measured: Any, encoder: Path) -> None:
    recipe = measured.recipes[0]
    suite = of_task(recipe)
    assert (suite.metric, suite.encoder) == ("bertscore", f"{encoder}#2")
    past = record.read(measured.workspace.run(recipe.run_id))
    answers = past.samples["asked"]
    texts = [(row["reference"], row["response"]) for row in answers]
    direct = encoders.scorer(f"bertscore:{encoder}#2", "cpu").scores(texts)
    assert [row["scored"] for row in answers] == pytest.approx(direct, abs=1e-5)
    assert not any("scored" in row for row in past.samples["harmful"])
    found = outcome(measured.workspace, recipe)
    assert found["utility_metric"] == "bertscore" and found["utility"] == pytest.approx(sum(direct) / 4, abs=1e-5)
    assert found["utility_ci"][0] <= found["utility"] <= found["utility_ci"][1]
    assert found["pareto_distance"] is not None and found.get("safety_tax_status") != "not_measured"


def test_encoder_and_layer_are_part_of_the_recipe_and_its_folder_is_not(measured: Any) -> None:
    recipe = measured.recipes[0]
    evaluation, suite = there(recipe.evaluation), of_task(recipe)

    def with_task(**changes: str) -> Recipe:
        suites = tuple(one.model_copy(update=changes) if one == suite else one for one in evaluation.suites)
        return recipe.model_copy(update={"evaluation": evaluation.model_copy(update={"suites": suites})})

    assert with_task(encoder="/elsewhere#2").run_id == recipe.run_id
    other = with_task(encoded=suite.encoded.replace("#2", "#3"))
    assert other.run_id != recipe.run_id
    keys = [evaluation_key(one.model_dump(mode="json")) for one in (recipe, other)]
    assert keys[0] != keys[1]
    # a suite without an encoder is written, and known, as before there were any
    plain = Suite.model_validate({**suite.model_dump(), "metric": "", "encoder": "", "encoded": ""})
    assert not {"encoder", "encoded"} & {*plain.model_dump(), *plain.identity()}


def test_leaderboard_front_curve_report_and_compare_have_it(measured: Any, encoder: Path) -> None:
    workspace, recipes = measured.workspace, measured.recipes
    # another encoder's figure of stored answers stands beside the run's own and is taken for it nowhere
    score_by_encoder(workspace, recipes[0].run_id, encoders.scorer(f"bertscore:{encoder}#3", "cpu"))
    with Owner.open(workspace) as owner:
        owner.ingest()
        con = owner.cursor()
        own_figures = {recipe.run_id: outcome(workspace, recipe)["utility"] for recipe in recipes}
        rows = queries.pair_runs(con, "U_S").set_index("run_id")
        assert len(rows) == rows.index.nunique() and set(rows["utility_metric"]) == {"bertscore"}
        for run_id, value in own_figures.items():
            assert rows.loc[run_id, "utility"] == pytest.approx(value)
        assert len(queries.front(con, pairs=["U_S"])) and len(queries.alpha_curves(con, "U_S")) == 2
        judge = str(rows["judge"].iloc[0])
        found = points.outcomes(
            queries.answers(con, list(own_figures), judge),
            rows.reset_index().merge(con.execute("SELECT run_id, recipe FROM runs").df(), on="run_id"),
        )
        task = found[found["role"] == "utility"].groupby("run_id")["value"].mean()
        assert task.to_dict() == pytest.approx(own_figures)
        sides = []
        for letter, recipe in zip("AB", recipes, strict=True):
            dump = recipe.model_dump(mode="json")
            samples = compare.scored(queries.run_samples(con, recipe.run_id, None, judge), dump)
            sides.append(compare.Side(letter, dump, queries.run_metrics(con, recipe.run_id), samples))
    table = compare.compare(sides, judge)
    own_rows = table[(table["metric"] == "bertscore") & (table["letter"] == "B")]
    assert list(own_rows["n_shared"]) == [4]
    values = list(own_figures.values())
    assert own_rows["difference"].iloc[0] == pytest.approx(values[1] - values[0], abs=1e-9)


def test_what_is_not_here_is_refused_before_launch_in_one_line(
    measured: Any, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def problem(metric: str) -> str:
        options = preflight.Options(n=4, utility_metric=metric, utility_suite=measured.options.utility_suite)
        plan = preflight.plan(measured.workspace, **measured.inputs, method="linear", parameters={}, options=options)
        assert plan.recipe is None and len(plan.problems) == 1
        return str(plan.problems[0])

    assert "hf download org/none --revision abc" in problem("bertscore:org/none@abc#4")
    assert "layer 9: it has 3" in problem(f"bertscore:{encoder}#9")
    monkeypatch.setattr(encoders, "_is_there", lambda package: package != "bert_score")
    assert 'pip install "sstmerge[bertscore]"' in problem(f"bertscore:{encoder}#2")
    suite = of_task(measured.recipes[0])
    with pytest.raises(DataError, match=r"changed since this run was planned"):
        encoders.of_suite(suite.model_copy(update={"metric": "semantic", "encoder": str(encoder), "encoded": "other"}))


def test_the_command_declares_it_and_another_metric_takes_no_encoder(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    (tmp_path / "asked.csv").write_text("\n".join(["prompt,response", *ROWS]))
    monkeypatch.chdir(tmp_path)
    add = ["suites", "asked", "--add", "asked.csv", "--role", "utility", "--metric"]
    assert main([*add, f"semantic:{encoder}"]) == 0
    assert f"metric: semantic ({encoder.resolve()})" in capsys.readouterr().out
    assert declared.get("asked", Workspace(tmp_path / "workspace")).measured_by == f"semantic:{encoder.resolve()}"
    add[1] = "other"
    assert main([*add, "rouge_l:somewhere"]) != 0
    assert "names an encoder" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="no layer of semantic"):
        encoders.declared(f"semantic:{encoder}#2")
