"""A finished run measured again with the base's weights in 8 or 4 bits: the same merge, the same prompts and judge."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sstmerge_core.adapters.json_file import read_object
from sstmerge_core.builder import recipe_file
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.models import bits
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

Bits = Literal[8, 4]
BITS: tuple[Bits, ...] = (8, 4)


def recipe(known: Recipe, few: Bits, workspace: Workspace) -> Recipe:
    """The recipe with its answers in so many bits, its inputs found here.

    What is fitted and what gradients are taken of stays the model in floats. Raises RecipeError where nothing was
    measured, the answers came from vLLM, the base is quantised already, or bitsandbytes is not installed.
    """
    where = f"run {known.run_id}"
    if known.evaluation is None or not known.evaluation.suites:
        raise RecipeError(Problem(where, "was not measured", "Measure it first."))
    if known.evaluation.backend != "transformers":
        fault = f"was answered by {known.evaluation.backend}, which has no {few} bits here"
        raise RecipeError(Problem(where, fault, "Measure it with --backend transformers first."))
    here = recipe_file.locate(known, workspace)
    quantised = bits.method(read_object(Path(here.base.path) / "config.json"))
    if found := bits.problem(f"base model {here.base.name}", quantised, few):
        raise RecipeError(found)
    assert here.evaluation is not None
    changed = here.evaluation.model_copy(update={"bits": few, "applied": "beside"})
    return here.model_copy(update={"evaluation": changed})


def lacking() -> Problem | None:
    """What must be installed before a run can be measured in 8 or 4 bits; None: nothing."""
    return bits.problem("this machine", "", 8)
