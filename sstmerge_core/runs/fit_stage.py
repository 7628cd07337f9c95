"""The stage in which a merge's numbers are fitted with the model: from the cache, from where it was stopped, or new."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core import methods
from sstmerge_core.recipe import STAGE_VERSIONS, Recipe
from sstmerge_core.runs.session import Session
from sstmerge_core.suites.twins import REFUSAL

if TYPE_CHECKING:
    from sstmerge_core.fitting import Fit, Part
    from sstmerge_core.models.supervised import Example

VERSION = 1
"""Raised by hand when a fit's result changes for the same input"""


def fitted(recipe: Recipe, session: Session) -> Fit:
    """What the recipe's method fits, on its calibration samples alone.

    Kept under everything that it depends on; a fit that was stopped goes on at its next step and gives the same bits.
    Raises Cancelled where the user stops it, DataError for rows that have changed.
    """
    from sstmerge_core import fitting
    from sstmerge_core.fisher import cache
    from sstmerge_core.fitting import kept

    entry = methods.get(recipe.method)
    depends = _depends(recipe, session)
    key = cache.key(**depends)
    found = kept.load(session.workspace, key)
    if found is None:
        checkpoint = kept.checkpoint(session.workspace, key)
        space = _space(recipe, session)
        found = fitting.learn(
            entry,
            entry.complete(recipe.parameters),
            space,
            _objective(recipe, session, space),
            checkpoint=checkpoint,
            progress=partial(session.progress, "fit"),
        )
        kept.save(session.workspace, key, found, depends)
        checkpoint.remove()
    return found


def _depends(recipe: Recipe, session: Session) -> dict[str, Any]:
    calibration = recipe.calibration
    assert calibration is not None
    return {
        "base": recipe.base.sha256,
        "adapters": [adapter.sha256 for adapter in recipe.adapters],
        "method": recipe.method,
        "parameters": methods.get(recipe.method).identity(recipe.parameters),
        "calibration": calibration.identity(),
        "device": session.device.partition(":")[0],  # core coordinates and the order of sums are those of a device
        "version": [VERSION, STAGE_VERSIONS["fisher"]],
    }


def _space(recipe: Recipe, session: Session) -> Any:
    from sstmerge_core.space import core_space

    return core_space([session.factors(source) for source in recipe.adapters])


def _objective(recipe: Recipe, session: Session, space: Any) -> Any:
    """The loss that the fit lowers, on the base model in memory."""
    from sstmerge_core.fitting import ModelObjective

    calibration = recipe.calibration
    assert calibration is not None
    parts = _parts(recipe, session)
    resident = session.model(recipe.base, calibration.dtype)
    resident.set_delta(None)
    return ModelObjective(
        resident.model,
        resident.tokenizer,
        space,
        parts,
        batch=recipe.parameters["batch"],
        seed=recipe.parameters["seed"],
        max_length=calibration.max_length,
    )


def _parts(recipe: Recipe, session: Session) -> dict[str, Part]:
    """The samples of each kind with their weight; the answers are the data's, or nobody's but the models' own."""
    from sstmerge_core.fitting import Part

    weights = {"harm": 1.0, "near": recipe.parameters["near_weight"], "benign": recipe.parameters["utility_weight"]}
    return {part: Part(_examples(recipe, session, part), weight) for part, weight in weights.items()}


def _examples(recipe: Recipe, session: Session, part: str) -> list[Example]:
    if recipe.parameters["targets"] == "answers":
        return session.examples(recipe, part)
    if part == "harm":
        return [example._replace(response=REFUSAL) for example in session.examples(recipe, part)]
    tell = partial(session.progress, "fit", 0, recipe.parameters["steps"])
    return session.own_answers(recipe, part, "base" if part == "near" else "utility", tell)
