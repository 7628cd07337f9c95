"""What an experiment has still to do, in steps with estimated times, before it computes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sstmerge_core.builder.preflight import is_finished
from sstmerge_core.experiments import seeds
from sstmerge_core.experiments.lab import Lab
from sstmerge_core.jobs import history
from sstmerge_core.jobs.estimate import ONCE, Rates, known_rate
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.recipe import Recipe
from sstmerge_core.workspace import Workspace

LEARNT = ONCE - {"start", "prepare", "screen"}
"""Stages in which a method looks at samples before it merges"""


@dataclass(frozen=True)
class Step:
    kind: Literal["screen", "measure", "train"]
    what: str
    total: int
    """Settings screened, runs measured, or adapters trained, in all"""
    left: int
    """Of these, how many are not known yet"""
    answers: int = 0
    """To be generated"""
    learnt: int = 0
    """Samples, steps and passes of what methods learn before they merge"""
    seconds: float = 0.0
    """Estimated, of what is left, at the pace that the machine had when it was learnt; see `slower_now`"""

    @property
    def minutes(self) -> float:
        return self.seconds / 60


def screening(lab: Lab, what: str, recipes: Sequence[Recipe]) -> Step:
    """Of settings that are screened; what their methods learn from samples is learnt here."""
    from sstmerge_core.runs.screen import is_known

    left = [one for one in recipes if one.selection is None and not is_known(one, lab.workspace, lab.where)]
    units = {stage: amount for stage, amount in _units(left, lab.workspace).items() if stage in LEARNT}
    learnt = _learnt(units)
    if left:
        units |= {"screen": float(len(left)), "prepare": 1.0}
    return Step("screen", what, len(recipes), len(left), learnt=learnt, seconds=_seconds(lab, left, units))


def measuring(lab: Lab, what: str, recipes: Sequence[Recipe], *, learnt: bool, anew: bool = False) -> Step:
    """Of runs; `learnt`: what their methods learn from samples was learnt by an earlier step.

    `anew`: `recipes` only stand for others as long, of adapters that are not there yet.
    """
    # in a workspace that is not there nothing is finished
    where = Workspace(lab.workspace.root / "nothing") if anew else lab.workspace
    left = [one for one in recipes if not is_finished(where, one)]
    units = {stage: amount for stage, amount in _units(left, where).items() if not (learnt and stage in LEARNT)}
    answers = sum(amount for stage, amount in units.items() if stage.startswith("generate:"))
    return Step("measure", what, len(recipes), len(left), round(answers), _learnt(units), _seconds(lab, left, units))


def training(lab: Lab, name: str, seed: int) -> Step:
    """Of a bundled adapter with another seed. Raises RecipeError for one that is not bundled."""
    what = f"train {name} with seed {seed}"
    if seeds.known(lab, name, seed) is not None:
        return Step("train", what, 1, 0)
    own = seeds.bundled(name)
    rates = _rates(lab, f"{lab.where}/{lab.base.sha256[:12]}")
    seconds = known_rate(rates, "train", False) * own.settings.epochs * len(seeds.rows(own))
    return Step("train", what, 1, 1, seconds=seconds)


def _units(recipes: Sequence[Recipe], workspace: Workspace) -> dict[str, float]:
    """Units of work by stage of recipes that are to be carried out, those of what they are compared with too."""
    found: dict[str, float] = {}
    for point in plan_units(recipes, workspace):
        for stage, amount in point.items():
            found[stage] = found.get(stage, 0.0) + amount
    return found


def _learnt(units: Mapping[str, float]) -> int:
    return round(sum(amount for stage, amount in units.items() if stage in LEARNT))


def _seconds(lab: Lab, recipes: Sequence[Recipe], units: Mapping[str, float]) -> float:
    if not recipes:
        return 0.0
    rates = _rates(lab, history.scope_of(recipes[0], lab.where))
    return sum(amount * known_rate(rates, stage, False) for stage, amount in units.items())


def _rates(lab: Lab, scope: str) -> Rates:
    """Seconds per unit that earlier jobs here showed, or a guess, at the pace that the machine had then."""
    return history.basis(lab.workspace, scope, "")[0]


def slower_now(lab: Lab) -> float:
    """By how much longer everything takes now than the steps say, as others may use the machine too; 1 on a GPU."""
    return history.basis(lab.workspace, f"{lab.where}/{lab.base.sha256[:12]}", lab.where)[1]
