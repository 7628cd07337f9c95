"""The commands that make a run again, and the Merge page filled in with its recipe."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from sstmerge_core import catalog, methods
from sstmerge_core.builder import preflight, recipe_command
from sstmerge_core.builder.preflight import Options
from sstmerge_core.builder.recipe_command import Inputs
from sstmerge_core.cli import _parser
from sstmerge_core.cli.merge import _of_options
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace
from tests.there import there

SETTINGS = [
    ("linear", {"alpha": 0.1 + 0.2}),
    ("sst_gevp", {"alpha": 1.5, "k": 7, "layerwise": True, "mode": "interpolate"}),
    ("dare_linear", {"alpha": 0.3, "p": 0.25, "seed": 7}),
    ("average", {}),
]


@pytest.fixture
def workspace(tmp_path, tiny_base, tiny_pair) -> Workspace:
    workspace = Workspace(tmp_path / "w").create()
    catalog.add_base(workspace, tiny_base)
    for path, name, role in zip(tiny_pair, ("mine", "safety"), ("utility", "safety"), strict=True):
        catalog.add(workspace, path, name=name, role=role)
    return workspace


def recipe(workspace: Workspace, method: str, parameters: dict, **options: Any) -> Recipe:
    base = next(base for base in catalog.bases(workspace) if base.name == "tiny-llama")
    entries = [catalog.find(workspace, name) for name in ("mine", "safety")]
    return preflight.merge_recipe(base, entries[:1], entries[1], method, parameters, Options(**options))


@pytest.mark.parametrize(("method", "parameters"), SETTINGS)
def test_the_command_makes_the_same_weights(workspace, method, parameters) -> None:
    wanted = recipe(workspace, method, parameters, n=4)
    command = recipe_command.by_options(wanted, workspace)
    options = _parser().parse_args(shlex.split(command)[1:])
    made = _of_options(options, workspace)
    assert made.run_id == wanted.model_copy(update={"evaluation": None}).run_id


def test_what_options_cannot_say_has_no_such_command(workspace) -> None:
    odd = recipe(workspace, "sst_gevp", {"alpha": 1.0})
    fewer = there(odd.calibration).model_copy(update={"n_harm": 3})
    assert recipe_command.by_options(odd.model_copy(update={"calibration": fewer}), workspace) is None
    gone = odd.adapters[0].model_copy(update={"sha256": "0" * 64})
    assert recipe_command.by_options(odd.model_copy(update={"adapters": (gone, odd.adapters[1])}), workspace) is None


def test_inputs_are_found_by_their_hashes_and_the_missing_ones_are_named(workspace) -> None:
    wanted = recipe(workspace, "linear", {"alpha": 0.5})
    elsewhere = [one.model_copy(update={"name": "renamed", "path": "/gone"}) for one in wanted.adapters]
    bases, entries = catalog.bases(workspace), catalog.entries(workspace)
    found = recipe_command.inputs(wanted.model_copy(update={"adapters": tuple(elsewhere)}), bases, entries)
    assert isinstance(found, Inputs) and [found.experts[0].name, found.safety.name] == ["mine", "safety"]
    unknown = wanted.base.model_copy(update={"sha256": "0" * 64, "name": "other"})
    missing = recipe_command.inputs(wanted.model_copy(update={"base": unknown}), bases, entries[:0])
    assert missing == ["base model other", *(f"adapter {one.name}" for one in wanted.adapters)]


@pytest.mark.parametrize(("method", "parameters"), SETTINGS)
def test_the_form_says_every_parameter_so_that_the_page_reads_the_same_recipe(workspace, method, parameters) -> None:
    wanted = recipe(workspace, method, parameters, split="selection", n=8)
    found = recipe_command.inputs(wanted, catalog.bases(workspace), catalog.entries(workspace))
    assert isinstance(found, Inputs)
    entries = (*found.experts, found.safety)
    names = {found.base.sha256: found.base.name} | {one.sha256: one.name for one in entries}
    values = recipe_command.form(wanted, found, names)
    said = {one.name: one.parse(str(values[one.name])) for one in methods.get(method).parameters}
    assert said == wanted.parameters and (values["split"], values["n"]) == ("selection", 8)
    assert recipe_command.not_in_the_form(wanted, workspace, found) == []


def test_what_the_form_has_no_field_for_is_named(workspace) -> None:
    wanted = recipe(workspace, "sst_gevp", {"alpha": 1.0}, utility_tokens=7)
    fewer = there(wanted.calibration).model_copy(update={"n_harm": 3})
    found = recipe_command.inputs(wanted, catalog.bases(workspace), catalog.entries(workspace))
    assert isinstance(found, Inputs)
    lost = recipe_command.not_in_the_form(wanted.model_copy(update={"calibration": fewer}), workspace, found)
    assert lost == ["the calibration samples", "what it is measured on"]


def test_device_format_and_length_are_in_the_form(workspace) -> None:
    how = preflight.how_to_compute("cuda:1")
    wanted = recipe(workspace, "sst_gevp", {"alpha": 1.0}, **how)
    found = recipe_command.inputs(wanted, catalog.bases(workspace), catalog.entries(workspace))
    assert isinstance(found, Inputs) and recipe_command.not_in_the_form(wanted, workspace, found) == []
    entries = (*found.experts, found.safety)
    names = {found.base.sha256: found.base.name} | {one.sha256: one.name for one in entries}
    said = recipe_command.form(wanted, found, names)
    told = ("cuda:1", "bfloat16", "beside", 512)
    assert tuple(said[name] for name in ("device", "dtype", "applied", "length")) == told


def test_a_single_adapter_has_the_command_that_measures_it(workspace) -> None:
    base = catalog.bases(workspace)[0]
    alone = preflight.single_recipe(base, catalog.find(workspace, "mine"), "facts", Options(split="selection", n=8))
    assert recipe_command.by_options(alone, workspace) is None
    assert recipe_command.measuring(alone, workspace) == "sstmerge evaluate --adapter mine --split selection --n 8"
    assert recipe_command.measuring(recipe(workspace, "average", {}), workspace) is None


def test_a_recipe_that_cannot_be_read_is_none() -> None:
    assert recipe_command.stored({}) is None and recipe_command.stored({"base": "x"}) is None
