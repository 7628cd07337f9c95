"""The stage in which a merge's numbers are fitted with the model: from the cache, from where it was stopped, or new."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core import methods
from sstmerge_core.recipe import STAGE_VERSIONS, Recipe
from sstmerge_core.runs.session import Session
from sstmerge_core.suites.twins import REFUSAL

if TYPE_CHECKING:
    from sstmerge_core.fitting import Fit, ModelObjective, Part
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
        given = (entry, entry.complete(recipe.parameters), space)
        how: dict[str, Any] = {"checkpoint": checkpoint, "progress": partial(session.progress, entry.stage)}
        if entry.kind == "iterated":
            found = fitting.iterate(*given, _Samples(recipe, session, space), **how)
        else:
            found = fitting.learn(*given, _objective(recipe, session, space, _parts(recipe, session)), **how)
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
    } | recipe.chat.told


def _space(recipe: Recipe, session: Session) -> Any:
    from sstmerge_core.space import core_space

    return core_space([session.factors(source) for source in recipe.adapters])


def _objective(recipe: Recipe, session: Session, space: Any, parts: Mapping[str, Part]) -> ModelObjective:
    """The loss of `parts` on the base model in memory."""
    from sstmerge_core.fitting import ModelObjective

    calibration = recipe.calibration
    assert calibration is not None
    resident = session.model(recipe.base, calibration.dtype, recipe.chat)
    resident.set_delta(None)
    drawn = {name: recipe.parameters[name] for name in ("batch", "seed") if name in recipe.parameters}
    length = calibration.max_length
    return ModelObjective(resident.model, resident.tokenizer, space, parts, max_length=length, **drawn)


class _Samples:
    """The calibration samples of an iterated fit, and the held-out ones, on the base model in memory."""

    def __init__(self, recipe: Recipe, session: Session, space: Any) -> None:
        from sstmerge_core.fitting import KINDS, Part

        parts = {part: Part(session.examples(recipe, part), 1.0) for part in KINDS}
        weights = _weights(recipe)
        held = {part: Part(session.held_examples(recipe, part), weight) for part, weight in weights.items()}
        self._fitted = _objective(recipe, session, space, parts)
        self._held = _objective(recipe, session, space, held)

        # minutes pass in these where nothing is told: whoever wants to stop is not to wait for their end
        self.gradients = self._fitted.gradients
        self.losses = partial(self._fitted.losses, tick=session.stop_if_asked)
        self.held = partial(self._held.loss, tick=session.stop_if_asked)


def _weights(recipe: Recipe) -> dict[str, float]:
    """Of each kind's mean loss."""
    parameters = recipe.parameters
    return {"harm": 1.0, "near": parameters["near_weight"], "benign": parameters["utility_weight"]}


def _parts(recipe: Recipe, session: Session) -> dict[str, Part]:
    """The samples of each kind with their weight; the answers are the data's, or nobody's but the models' own."""
    from sstmerge_core.fitting import Part

    return {part: Part(_examples(recipe, session, part), weight) for part, weight in _weights(recipe).items()}


def _examples(recipe: Recipe, session: Session, part: str) -> list[Example]:
    if recipe.parameters["targets"] == "answers":
        return session.examples(recipe, part)
    if part == "harm":
        return [example._replace(response=REFUSAL) for example in session.examples(recipe, part)]
    tell = partial(session.progress, "fit", 0, recipe.parameters["steps"])
    return session.own_answers(recipe, part, "base" if part == "near" else "utility", tell)
