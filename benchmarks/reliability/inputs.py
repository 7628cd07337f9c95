"""What the suite works on: a tiny random model, two adapters of it, a workspace, and the recipes of one job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core import catalog
from sstmerge_core.builder import preflight
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

PROMPTS = 6
"""Of each suite, in two batches of three, answers of at most four tokens"""
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (("sst_gevp", {"alpha": 1.0}), ("sst_learned", {"steps": 3}))
"""One with gradients, and one that is fitted"""


@dataclass(frozen=True)
class Inputs:
    base: Path
    utility: Path
    safety: Path

    @classmethod
    def at(cls, folder: Path) -> Inputs:
        return cls(folder / "base", folder / "U", folder / "S")

    def made(self) -> bool:
        return all(path.is_dir() for path in (self.base, self.utility, self.safety))


def make(folder: Path) -> Inputs:
    """The model and its adapters, where they are not there yet. Needs PEFT, so call it in a child."""
    found = Inputs.at(folder)
    if not found.made():
        from tests.tiny_models import build_base, make_adapter

        build_base("llama", found.base, tie_word_embeddings=True)
        make_adapter(found.base, found.utility, 1)
        make_adapter(found.base, found.safety, 2, r=3, use_rslora=True, target_modules=["q_proj", "v_proj"])
    return found


def workspace(folder: Path, inputs: Inputs) -> Workspace:
    """An empty workspace that knows the model and the adapters."""
    made = Workspace(folder).create()
    catalog.add_base(made, inputs.base)
    catalog.add(made, inputs.utility, name="U", role="utility", suite="facts")
    catalog.add(made, inputs.safety, name="S", role="safety")
    return made


def recipes(known: Workspace, inputs: Inputs) -> list[Recipe]:
    base = catalog.base_at(inputs.base)
    utility = catalog.entry(inputs.utility, name="U", role="utility", suite="facts")
    safety = catalog.entry(inputs.safety, name="S", role="safety")
    found = []
    for method, parameters in METHODS:
        options = preflight.Options(n=PROMPTS)
        plan = preflight.plan(
            known, base=base, utility=utility, safety=safety, method=method, parameters=parameters, options=options
        )
        assert plan.recipe is not None and plan.recipe.evaluation is not None, plan.problems
        suites = tuple(suite.model_copy(update={"max_new_tokens": 4}) for suite in plan.recipe.evaluation.suites)
        evaluation = plan.recipe.evaluation.model_copy(update={"suites": suites, "batch_size": 3})
        found.append(plan.recipe.model_copy(update={"evaluation": evaluation}))
    return found
