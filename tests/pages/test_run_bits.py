"""A run measured again in 8 and 4 bits: the button, the job, and the figures side by side."""

from __future__ import annotations

import importlib.util
import random
import time

import pandas as pd
import pytest

from sstmerge_core import jobs
from sstmerge_core.analysis import precision
from sstmerge_core.builder import in_bits, recipe_file
from sstmerge_core.cli import main
from sstmerge_core.errors import RecipeError
from sstmerge_core.metrics.comparable import evaluation_key, setting_key
from sstmerge_core.plots import precisions
from sstmerge_core.recipe import Recipe
from sstmerge_core.store import Owner
from sstmerge_core.workspace import Workspace
from tests import synthetic_workspace as synthetic


def at(recipe: Recipe, few: int | None) -> Recipe:
    assert recipe.evaluation is not None
    evaluation = recipe.evaluation.model_copy(update={"bits": few} if few else {})
    return recipe.model_copy(update={"evaluation": evaluation})


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[int | None, Recipe]]:
    """One merge in floats, in 8 and in 4 bits, and another one in floats."""
    workspace = Workspace(tmp_path_factory.mktemp("bits")).create()
    plain = synthetic._recipe("A5", "facts", "ties", {"alpha": 0.5})
    found = {few: at(plain, few) for few in (None, 8, 4)}
    for number, recipe in enumerate([*found.values(), synthetic._recipe("A5", "facts", "ties", {"alpha": 0.7})]):
        synthetic._run(workspace, random.Random(number), recipe, time.time() + number, 4)
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace, found


def test_bits_are_another_run_that_is_not_ranked_with_the_floats_but_belongs_to_them(measured) -> None:
    _, found = measured
    dumps = [recipe.model_dump(mode="json") for recipe in found.values()]
    assert len({evaluation_key(one) for one in dumps}) == 3 and len({setting_key(one) for one in dumps}) == 1
    rows = pd.DataFrame(
        [{"run_id": recipe.run_id, "recipe": recipe.model_dump(mode="json")} for recipe in found.values()]
    )
    for recipe in found.values():
        beside = precision.beside(recipe.run_id, rows)
        assert beside == {name: found[few].run_id for name, few in (("float32", None), ("8 bits", 8), ("4 bits", 4))}, (
            "whichever of them is looked at"
        )
    other = rows.assign(recipe=[{**recipe, "chat": {"system": "be kind"}} for recipe in rows["recipe"]])
    mixed = pd.concat([rows[:1], other[1:]])
    assert list(precision.beside(found[None].run_id, mixed)) == ["float32"], "another system prompt is another question"
    assert precision.beside("unknown", rows) == {}


def test_the_figures_stand_side_by_side_with_interval_and_n_and_what_is_missing_is_a_dash() -> None:
    rows = pd.DataFrame(
        [
            {"run_id": run, **{f"{one}{end}": number for one in precision.FIGURES for end, number in ends.items()}}
            for run, ends in (
                ("a", {"": 0.5, "_low": 0.4, "_high": 0.6, "_n": 20.0}),
                ("b", {"": None, "_low": None, "_high": None, "_n": None}),
            )
        ]
    ).assign(over_refusal=float("nan"))
    shown = precisions.side_by_side(precision.figures({"float32": "a", "4 bits": "b"}, rows))
    assert list(shown["Base's weights"]) == ["float32", "4 bits"]
    assert list(shown["Resistance ↑"]) == ["0.500 [0.400, 0.600], n 20", "–"]
    assert not any("Over-refusal" in column for column in shown.columns), "nobody has it"


def test_the_run_page_and_the_compare_page_tell_resistance_over_refusal_and_utility_of_each_precision(
    measured, open_page
) -> None:
    workspace, found = measured
    for page, query in (
        ("run", {"run": found[None].run_id}),
        ("compare", {"run": [found[None].run_id, found[4].run_id]}),
    ):
        app = open_page(workspace, page, **query)
        assert not app.exception
        tables = [text.value for text in app.markdown if "Base's weights" in text.value]
        assert len(tables) == 1, "once, though both runs have it"
        (table,) = tables
        for name in ("float32", "8 bits", "4 bits", "Resistance", "Over-refusal", ", n "):
            assert name in table


def test_the_command_prints_them_and_measures_nothing_when_told_so(measured, monkeypatch, capsys) -> None:
    workspace, found = measured
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    assert main(["precision", found[None].run_id, "--only-show"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("float32", "8 bits", "4 bits", "Resistance", ", n "))
    assert main(["precision", found[None].run_id, "--only-show", "--bits", "3"]) == 2
    assert "is neither 8 nor 4" in capsys.readouterr().err
    assert main(["precision", "0123456789abcdef", "--only-show"]) == 2
    assert "is not in this workspace" in capsys.readouterr().err


def test_the_button_is_off_with_the_way_to_the_tool_and_launches_both_where_it_is_there(
    measured, open_page, monkeypatch
) -> None:
    workspace, found = measured
    real = importlib.util.find_spec
    there = {"bitsandbytes": False, "accelerate": False}
    monkeypatch.setattr(
        "sstmerge_core.models.bits.importlib.util.find_spec",
        lambda name, *rest: (object() if there[name] else None) if name in there else real(name, *rest),
    )
    app = open_page(workspace, "run", run=found[None].run_id)
    assert app.button("run.bits").disabled and "sstmerge[bits]" in app.button("run.bits").help
    with pytest.raises(RecipeError, match=r"sstmerge\[bits\]"):
        monkeypatch.setattr(recipe_file, "locate", lambda known, workspace: known)
        monkeypatch.setattr(in_bits, "read_object", lambda path: {})
        in_bits.recipe(found[None], 8, workspace)
    there.update(bitsandbytes=True, accelerate=True)
    launched: list[list[Recipe]] = []

    def submit(workspace: Workspace, recipes: list[Recipe], **told: object) -> str:
        launched.append(recipes)
        raise RecipeError([])  # it is the recipes that are looked at

    monkeypatch.setattr(jobs, "submit", submit)
    app = open_page(workspace, "run", run=found[None].run_id)
    app.button("run.bits").click().run()
    assert not app.exception
    assert [recipe.run_id for recipe in launched[0]] == [
        in_bits.recipe(found[None], few, workspace).run_id for few in in_bits.BITS
    ]
    assert all(recipe.evaluation and recipe.evaluation.applied == "beside" for recipe in launched[0])
    app = open_page(workspace, "run", run=found[4].run_id)
    assert "run.bits" not in [button.key for button in app.button], "it is in 4 bits already"


def test_what_was_not_measured_or_answered_by_another_program_cannot_be_measured_in_bits(measured) -> None:
    workspace, found = measured
    plain = found[None]
    with pytest.raises(RecipeError, match="was not measured"):
        in_bits.recipe(plain.model_copy(update={"evaluation": None}), 8, workspace)
    assert plain.evaluation is not None
    served = plain.evaluation.model_copy(update={"backend": "vllm"})
    with pytest.raises(RecipeError, match="answered by vllm"):
        in_bits.recipe(plain.model_copy(update={"evaluation": served}), 8, workspace)
