"""What a job will do, in units of work per point and stage, before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import last_status
from sstmerge_core.workspace import Workspace


def plan_units(recipes: Sequence[Recipe], workspace: Workspace) -> list[dict[str, float]]:
    """Units per stage of each point; nothing for a point whose run is finished already.

    Gradients are shared by points with the same calibration data and adapters, so the first such point has them all.
    """
    plan: list[dict[str, float]] = []
    calibrated: set[str] = set()
    for recipe in recipes:
        finished = last_status(workspace.run(recipe.run_id)) == "finished"
        units = {} if finished else _units(recipe)
        if recipe.calibration and not finished:
            key = _calibration_key(recipe)
            if key not in calibrated:
                units["fisher"] = float(recipe.calibration.n_harm + recipe.calibration.n_benign)
            calibrated.add(key)
        plan.append(units)
    first = next((units for units in plan if units), None)
    if first is not None:
        first["prepare"] = 1.0
    return plan


def _units(recipe: Recipe) -> dict[str, float]:
    suites = recipe.evaluation.suites if recipe.evaluation else ()
    generated = {f"generate:{suite.name}": float(suite.n) for suite in suites}
    judged = {"judge": sum(generated.values())} if generated else {}
    return {"merge": 1.0, **generated, **judged, "metrics": 1.0}


def _calibration_key(recipe: Recipe) -> str:
    inputs = [recipe.base.sha256, *(adapter.sha256 for adapter in recipe.adapters)]
    calibration = recipe.calibration.model_dump(mode="json") if recipe.calibration else {}
    return json.dumps([inputs, calibration], sort_keys=True)
