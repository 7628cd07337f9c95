"""How long runs will take, from what earlier jobs on this workspace showed."""

from __future__ import annotations

from collections.abc import Sequence

from sstmerge_core.jobs.estimate import START, Estimator
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace


def predict(workspace: Workspace, recipes: Sequence[Recipe], device: str | None = None) -> float:
    """Seconds that a job of these recipes would take from its launch; a rough guess before the first job here."""
    from sstmerge_core.jobs import default_device

    if not recipes:
        return 0.0
    scope = f"{device or default_device()}/{recipes[0].base.sha256[:12]}"
    rates = Queue(workspace).rates(scope) if workspace.queue.exists() else {}
    estimator = Estimator(plan=[{START: 1.0}, *plan_units(recipes, workspace)], started=0.0, history=rates)
    return estimator.remaining(0.0)
