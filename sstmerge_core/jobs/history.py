"""How long runs will take and how much memory, from what earlier jobs on this workspace showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sstmerge_core.analysis.screening import Screening
from sstmerge_core.jobs import pace
from sstmerge_core.jobs.estimate import START, Estimator, Rates
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

PACE = "pace"
"""Beside the rates of a scope: what `pace.measure` gave when they were learnt"""
NOTICED = 1.25
"""A machine that is faster or slower by less than this is as it was"""


def predict(
    workspace: Workspace, recipes: Sequence[Recipe], device: str | None = None, screening: Screening | None = None
) -> float:
    """Seconds that a job of these recipes would take from its launch; a rough guess before the first job here.

    With `screening` all are screened and the best carried out.
    """
    from sstmerge_core.jobs import default_device

    if not recipes:
        return 0.0
    rates, slower = _basis(workspace, recipes[0], device or default_device())
    plan = [{START: 1.0}, *plan_units(recipes, workspace, screening.keep if screening else None)]
    return Estimator(plan=plan, started=0.0, history=rates, pace=slower).remaining(0.0)


def time_basis(workspace: Workspace, recipes: Sequence[Recipe], device: str | None = None) -> str:
    """What `predict` rests on, as the end of a sentence."""
    from sstmerge_core.jobs import default_device, eta_error

    where = device or default_device()
    rates, slower = _basis(workspace, recipes[0], where) if recipes else ({}, 1.0)
    now = "" if 1 / NOTICED < slower < NOTICED else f", which is {_times(slower)} now"
    if not rates:
        guess = "a rough guess for two CPU cores"
        return f"{guess}{now and now + ' here'}: no job with this base model has ended here yet"
    error = eta_error(workspace)
    off = f"; at half of a job the time left was off by {error:.0%} in the median" if error is not None else ""
    return f"from the speed of earlier jobs with this base model on {where}{now}{off}"


def peak_memory(recipes: Sequence[Recipe], estimated: int, measured: Mapping[str, float]) -> tuple[int, str]:
    """Peak bytes to expect of a job of `recipes`, and what that rests on, as the end of a sentence.

    `estimated` is the sum of what is known to be held, `measured` the peak by method of finished runs of the same base
    on the same device; a peak is that of the run's process, which may have done heavier runs before.
    """
    methods = {recipe.method for recipe in recipes}
    if methods and methods <= measured.keys():
        return int(max(measured[method] for method in methods)), "the most that such runs took on this base model"
    known = max((measured[method] for method in methods & measured.keys()), default=0.0)
    return max(estimated, int(known)), "from the sizes of the base model, the adapters and the gradients"


def scope_of(recipe: Recipe, device: str) -> str:
    """What the speed of a job depends on: jobs of one scope teach each other."""
    backend = recipe.evaluation.backend if recipe.evaluation else "transformers"
    parts = [device, recipe.base.sha256[:12]]
    parts += [backend] if backend != "transformers" else []
    return "/".join(parts + ([recipe.dtype] if recipe.dtype != "float32" else []))


def basis(workspace: Workspace, scope: str, device: str) -> tuple[Rates, float]:
    """Rates that earlier jobs of a scope showed, and by how much longer all takes now than it did then, or guessed."""
    rates = Queue(workspace).rates(scope) if workspace.queue.exists() else {}
    then = rates.pop(PACE, None)
    if rates and then is None:  # from a version that did not measure: taken as they are
        return rates, 1.0
    return rates, pace.factor(pace.now(device), then)


def learn(queue: Queue, scope: str, rates: Rates, measured: float | None) -> None:
    """Keep what a job showed while the machine had the pace `measured`; what was known is told at that pace first."""
    if measured is not None:
        known = queue.rates(scope)
        then = known.pop(PACE, None)
        scale = pace.factor(measured, then) if then is not None else 1.0
        queue.set_rates(scope, {stage: seconds * scale for stage, seconds in known.items()} | {PACE: measured})
    queue.learn(scope, rates)


def _basis(workspace: Workspace, recipe: Recipe, device: str) -> tuple[Rates, float]:
    return basis(workspace, scope_of(recipe, device), device)


def _times(slower: float) -> str:
    return f"{slower:.1f} times slower" if slower > 1 else f"{1 / slower:.1f} times faster"
