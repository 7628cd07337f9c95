"""The stage in which a merge's numbers are fitted with the model: from the cache, from where it was stopped, or new."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core import methods
from sstmerge_core.adapters.base_weights import base_weights
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.fisher.outputs import RESIDUAL, prompt_outputs
from sstmerge_core.fitting import edited
from sstmerge_core.merge import deltas, merge
from sstmerge_core.methods import edits
from sstmerge_core.methods.edits import layer_of
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.recipe import STAGE_VERSIONS, Calibration, Recipe
from sstmerge_core.runs.session import Session
from sstmerge_core.suites.twins import REFUSAL

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fitting import Fit, ModelObjective, Part
    from sstmerge_core.models.resident import ResidentModel
    from sstmerge_core.models.supervised import Example

WRITERS = ("o_proj", "down_proj", "out_proj", "c_proj", "fc2", "fc_out", "wo", "w2", "dense", "dense_4h_to_h")
"""What modules are called that write to the residual stream"""
ANSWER_TOKENS = 32
"""Of an answer, at most: a refusal shows at its beginning"""
AT_ONCE = 16
"""Prompts that are answered in one batch"""
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
        given = (entry, entry.complete(recipe.parameters))
        how: dict[str, Any] = {"checkpoint": checkpoint, "progress": partial(session.progress, entry.stage)}
        if entry.kind == "edited":
            found = fitting.edit(*given, _Prompts(recipe, session), **how)
        elif entry.kind == "iterated":
            space = _space(recipe, session)
            found = fitting.iterate(*given, space, _Samples(recipe, session, space), **how)
        else:
            space = _space(recipe, session)
            found = fitting.learn(*given, space, _objective(recipe, session, space, _parts(recipe, session)), **how)
        kept.save(session.workspace, key, found, depends)
        checkpoint.remove()
    return found


def _depends(recipe: Recipe, session: Session) -> dict[str, Any]:
    calibration = recipe.calibration
    assert calibration is not None
    return {
        "base": recipe.computed_base,
        "adapters": [adapter.sha256 for adapter in recipe.adapters],
        "method": recipe.method,
        "parameters": methods.get(recipe.method).identity(recipe.parameters),
        "calibration": calibration.identity(),
        "device": session.device.partition(":")[0],  # core coordinates and the order of sums are those of a device
        "version": [VERSION, STAGE_VERSIONS["fisher"]],
    } | recipe.chat.told


def _space(recipe: Recipe, session: Session) -> Any:
    from sstmerge_core.space import core_space

    return core_space([session.factors(source, recipe) for source in recipe.adapters])


def _objective(recipe: Recipe, session: Session, space: Any, parts: Mapping[str, Part]) -> ModelObjective:
    """The loss of `parts` on the base model in memory."""
    from sstmerge_core.fitting import ModelObjective

    calibration = recipe.calibration
    assert calibration is not None
    resident = session.model(recipe.base, calibration.dtype, recipe.chat, kept=session.kept(recipe))
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


class _Prompts:
    """The calibration prompts of a method that edits whole weights, asked of the merge with the edits so far."""

    def __init__(self, recipe: Recipe, session: Session) -> None:
        from sstmerge_core.evaluate.judges import get_judge

        self._recipe, self._session = recipe, session
        self._entry = methods.get(recipe.method)
        self._prompts = {kind: [one.prompt for one in session.examples(recipe, kind)] for kind in edits.KINDS}
        self._judge = get_judge(DEFAULT_JUDGE) if self._entry.needs_answers else None

    def look(self, so_far: dict[str, edits.Edit], answers_alone: bool) -> edits.Seen:
        resident = self._edited(so_far)
        answered = {kind: self._answered(resident, own) for kind, own in self._prompts.items()} if self._judge else None
        if answers_alone:
            return edits.Seen({}, answered)
        names, block = self._modules(resident)
        outputs: dict[str, dict[str, Any]] = {name: {} for name in (*names, *([RESIDUAL] if block else []))}
        for kind, own in self._prompts.items():
            found = prompt_outputs(
                resident.model,
                resident.tokenizer,
                names,
                own,
                last_token=self._entry.needs_answers,
                block=block,
                max_length=self._calibration.max_length,
                tick=self._session.stop_if_asked,
            )
            for name, values in found.items():
                outputs[name][kind] = values
        return edits.Seen(outputs, answered, outputs.pop(RESIDUAL, None))

    @property
    def _calibration(self) -> Calibration:
        assert self._recipe.calibration is not None
        return self._recipe.calibration

    def _edited(self, so_far: dict[str, edits.Edit]) -> ResidentModel:
        """The base model with the merge and the edits so far."""
        recipe, session = self._recipe, self._session
        merged = merge(
            [session.factors(source, recipe) for source in recipe.adapters],
            recipe.method,
            recipe.parameters,
            base=base_weights(recipe.base.path, session.arithmetic),
            fit=edited.as_fit(so_far),
        )
        resident = session.model(recipe.base, self._calibration.dtype, recipe.chat, kept=session.kept(recipe))
        resident.set_delta(deltas(merged))
        return resident

    def _answered(self, resident: ResidentModel, prompts: list[str]) -> torch.Tensor:
        """Whether each prompt is answered: neither refused nor with broken text."""
        import torch

        assert self._judge is not None
        found = []
        for start in range(0, len(prompts), AT_ONCE):
            self._session.stop_if_asked()
            asked = prompts[start : start + AT_ONCE]
            given = resident.generate(asked, ANSWER_TOKENS)
            found += [
                self._judge.score(prompt, one.text).label not in ("refusal", "degenerate")
                for prompt, one in zip(asked, given, strict=True)
            ]
        return torch.tensor(found, dtype=torch.bool)

    def _modules(self, resident: ResidentModel) -> tuple[list[str], str]:
        """The modules that are looked at, and for a method that asks for answers the last layer."""
        if not self._entry.needs_answers:
            return sorted(
                set().union(*(self._session.factors(source, self._recipe) for source in self._recipe.adapters))
            ), ""
        names = [
            name
            for name in sorted(resident.modules)
            if name.rpartition(".")[2] in WRITERS and layer_of(name) is not None
        ]
        if not names:
            fault = f"has no layer with a module called {', '.join(WRITERS)}, which {self._entry.title} changes"
            raise DataError(Problem(f"base model {self._recipe.base.name}", fault, "Choose another method."))
        last = max(names, key=lambda name: layer_of(name) or 0)
        parts = last.split(".")
        place = next(index for index, part in enumerate(parts) if part.isdecimal())
        return names, ".".join(parts[: place + 1])


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
