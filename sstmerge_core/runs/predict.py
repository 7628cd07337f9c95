"""The quadratic model's prediction for recipes that need not be carried out: gradients and merges only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sstmerge_core.merge.quadratic import Prediction
from sstmerge_core.models.device import best_device, share_the_machine
from sstmerge_core.recipe import Calibration, Recipe
from sstmerge_core.runs.execute import merge_now
from sstmerge_core.runs.session import Report, Session
from sstmerge_core.workspace import Workspace


def predict(
    recipes: Sequence[Recipe],
    calibration: Calibration,
    workspace: Workspace,
    *,
    session: Session | None = None,
    report: Report = lambda point, stage, done, total: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> list[Prediction]:
    """One prediction a recipe, all of them on the gradients of `calibration`, whether or not the method needs any.

    About a second a point on two cores once the gradients are there. Raises what a merge raises, and Cancelled.
    """
    from sstmerge_core.merge import quadratic

    share_the_machine()
    session = session or Session(workspace, best_device())
    session.report, session.should_cancel = report, should_cancel
    found = []
    for session.point, recipe in enumerate(recipes):
        session.progress("predict", session.point, len(recipes))
        calibrated = session.calibrated(recipe.model_copy(update={"calibration": calibration}))
        found.append(quadratic.predict(calibrated, merge_now(recipe, session).modules))
    return found
