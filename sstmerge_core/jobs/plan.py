"""What a job will do, in units of work per point and stage, before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sstmerge_core import methods
from sstmerge_core.merge import budget
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import last_status
from sstmerge_core.workspace import Workspace


def plan_units(recipes: Sequence[Recipe], workspace: Workspace, keep: int | None = None) -> list[dict[str, float]]:
    """Units per stage of each point; nothing for a point whose run is finished already.

    Where all are screened first and only `keep` are carried out, which ones nobody knows yet: as many, spread over
    `recipes`.

    Gradients are shared by points with the same calibration data and adapters, so the first such point has them all;
    a fit by none.
    The run that a merge is compared with is measured within the first point that needs it.
    """
    if keep is not None:
        spread = [recipes[index * len(recipes) // keep] for index in range(keep)] if keep < len(recipes) else recipes
        plan = plan_units(spread, workspace)
        if plan:
            plan[0]["screen"] = float(len(recipes))
        return plan
    plan = []
    calibrated: set[str] = set()
    known: set[str] = set()
    for recipe in recipes:
        units: dict[str, float] = {}
        for part in filter(None, (recipe.reference, recipe)):
            if part.run_id in known or last_status(workspace.run(part.run_id)) == "finished":
                continue
            known.add(part.run_id)
            for stage, amount in _units(part).items():
                units[stage] = units.get(stage, 0.0) + amount
        entry = methods.get(recipe.method)
        if units and recipe.calibration and (key := calibration_key(recipe)) not in calibrated:
            others = importance_units if entry.needs_importance else inputs_units if entry.needs_inputs else _samples
            count = fit_units if entry.fits else others
            units[entry.stage] = float(count(recipe))
            calibrated.add(key)
        plan.append(units)
    # The model is loaded for the first answers or gradients; merging alone needs none.
    first = next((units for units in plan if units.keys() - {"merge"}), None)
    if first is not None:
        first["prepare"] = 1.0
    return plan


def importance_units(recipe: Recipe) -> int:
    """Samples of which dense gradients are taken: each side's own, at the base and with its adapter."""
    if recipe.calibration is None:
        return 0
    return 2 * ((len(recipe.adapters) - 1) * recipe.calibration.n_benign + recipe.calibration.n_harm)


def inputs_units(recipe: Recipe) -> int:
    """Samples of which the inputs of every module are looked at."""
    return recipe.calibration.n_harm if recipe.calibration else 0


def _samples(recipe: Recipe) -> int:
    return recipe.calibration.samples if recipe.calibration else 0


def fit_units(recipe: Recipe) -> int:
    """Steps, or passes, of a fit."""
    return int(recipe.parameters.get("steps", recipe.parameters.get("passes", 1)))


def _units(recipe: Recipe) -> dict[str, float]:
    if recipe.evaluation is None:
        return {"merge": 1.0}
    probes = {"budget": float(budget.STEPS + 2)} if recipe.selection else {}
    generated = {f"generate:{suite.name}": float(suite.n) for suite in recipe.evaluation.suites}
    return {"merge": 1.0, **probes, **generated, "judge": sum(generated.values()), "metrics": 1.0}


def calibration_key(recipe: Recipe) -> str:
    inputs = [recipe.computed_base, *(adapter.sha256 for adapter in recipe.adapters)]
    calibration = recipe.calibration.model_dump(mode="json") if recipe.calibration else {}
    entry = methods.get(recipe.method)
    sampled = recipe.parameters if entry.fits else entry.sampled
    own = {name: value for name, value in recipe.parameters.items() if name in sampled}
    own |= {"method": recipe.method} if entry.fits else {}
    return json.dumps([inputs, calibration, own], sort_keys=True)
