"""Weights of one's own for each adapter, and the adapter that is subtracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.builder import preflight
from sstmerge_core.builder.preflight import Preflight
from sstmerge_core.cli import main
from sstmerge_core.errors import RecipeError
from sstmerge_core.merge import effective_weights, merge
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(tmp_path / "workspace"))
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def plan(workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path]) -> Any:
    def make(method: str, role: str = "safety", **parameters: object) -> Preflight:
        return preflight.plan(
            workspace,
            base=catalog.base_at(tiny_base),
            utility=catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
            safety=catalog.entry(tiny_pair[1], name="L", role=role),
            method=method,
            parameters=parameters,
            evaluate=False,
        )

    return make


def test_weights_are_one_text_however_they_were_written() -> None:
    (weights,) = (own for own in methods.get("linear").parameters if own.name == "weights")
    assert weights.parse("1, -0.50,2e0") == weights.parse([1, -0.5, 2]) == "1,-0.5,2"
    assert weights.parse("") == "" and weights.parse(-3) == "-3"
    for wrong in ("1,,2", "a", "1,inf", [None]):
        with pytest.raises(ValueError, match="numbers"):
            weights.parse(wrong)


def test_a_negative_weight_subtracts_its_adapter_everywhere_that_adapters_are_added() -> None:
    shown = effective_weights("task_arithmetic", {"alpha": 0.5, "experts": "sum", "weights": "1,-2,1"}, 2)
    assert shown == {"ΔU1": 1.0, "ΔU2": -2.0, "ΔS": 0.5}
    for name in ("tsv_merge", "iso_c"):
        assert "-2 times ΔU2" in str(effective_weights(name, {"weights": "1,-2,1"}, 2))


def test_a_number_of_weights_that_is_not_that_of_the_adapters_is_a_problem_before_the_run(plan) -> None:
    for name in ("linear", "tsv_merge"):
        (problem,) = plan(name, weights="1,2,3").problems
        assert "3 numbers for 2 adapters" in problem.fault
        assert plan(name, weights="1,-2").problems == []


def test_a_run_without_weights_of_its_own_keeps_the_identity_that_it_had(plan) -> None:
    recipe = plan("linear").recipe
    before = {name: value for name, value in recipe.parameters.items() if name != "weights"}
    assert methods.get("linear").identity(recipe.parameters) == before
    old = Recipe.model_validate(recipe.model_dump() | {"parameters": before})
    assert old.parameters["weights"] == "" and old.run_id == recipe.run_id
    assert plan("linear", weights="1,-1").recipe.run_id != recipe.run_id


def test_resta_is_task_arithmetic_with_the_last_adapter_negated(tiny_pair) -> None:
    pair = [adapters.read(path).load() for path in tiny_pair]
    first = merge(pair, "resta", {"alpha": 0.8})
    second = merge(pair, "task_arithmetic", {"alpha": 0.8, "weights": "1,-1"})
    for name, module in first.modules.items():
        assert torch.equal(module.delta(), second.modules[name].delta())
    assert effective_weights("resta", {"alpha": 0.8}) == {"ΔU": 1.0, "ΔH": -0.8}


def test_subtracting_a_safety_adapter_and_adding_a_harm_adapter_are_warned_of(plan) -> None:
    def told(method: str, role: str) -> list[str]:
        return [str(found) for found in plan(method, role).warnings if found.where == f"method {method}"]

    (subtracted,), (added,) = told("resta", "safety"), told("linear", "harm")
    assert "subtracts L, a safety adapter" in subtracted
    assert "adds L, a harm adapter" in added and "resta" in added
    assert told("resta", "harm") == told("resta", "") == told("linear", "") == told("linear", "safety") == []


def test_a_sweep_does_not_subtract_a_safety_adapter_among_many_runs(workspace, tiny_base, tiny_pair) -> None:
    """Whoever takes a whole family gets RESTA with it."""
    utility = catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts")
    for role, wrong in (("safety", "resta"), ("harm", "linear")):
        last = catalog.entry(tiny_pair[1], name="L", role=role)
        planned = preflight.plan_sweep(
            workspace, catalog.base_at(tiny_base), utility, last, methods=["linear", "resta"], alphas=[0.2, 0.4]
        )
        assert [problem.where for problem in planned.problems] == [f"method {wrong}"] and planned.recipes == []


def test_a_harm_adapter_is_registered_and_merged_from_the_command_line(
    workspace: Workspace, tiny_base: Path, tiny_pair: tuple[Path, Path], tmp_path: Path, capsys
) -> None:
    assert main(["adapters", "add", str(tiny_pair[1]), "--name", "H", "--role", "harm"]) == 0
    assert [entry.role for entry in catalog.entries(workspace) if entry.name == "H"] == ["harm"]
    given = ["merge", "--base", str(tiny_base), "--utility", str(tiny_pair[0]), "--safety", "H", "--out"]
    assert main([*given, str(tmp_path / "out"), "--method", "resta", "--alpha", "0.5"]) == 0
    assert "harm adapter" not in capsys.readouterr().err
    written, (utility, harm) = (
        adapters.read(tmp_path / "out").load(),
        [adapters.read(path).load() for path in tiny_pair],
    )
    for name, own in written.items():
        parts = [(sign, part[name]) for sign, part in ((1.0, utility), (-0.5, harm)) if name in part]
        expected = torch.stack([sign * part.scaling * part.b @ part.a for sign, part in parts]).sum(0)
        assert torch.allclose(own.scaling * own.b @ own.a, expected, atol=1e-6)


def test_a_method_without_weights_says_that_it_has_none() -> None:
    with pytest.raises(RecipeError, match="no such parameter"):
        methods.get("slerp").complete({"weights": "1,1"})
