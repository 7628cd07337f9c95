"""How much of what varies between the runs of a sweep each parameter explains; by `optuna`, the extra ``[search]``.

PED-ANOVA (Watanabe, Bansal & Hutter 2023, arXiv 2304.10255), which is optuna's own default: how far the distribution of
a parameter among the better runs is from that among all of them. With scikit-learn beside it, fANOVA (Hutter, Hoos &
Leyton-Brown 2014, ICML): the share of the variance of a random forest that the parameter alone has.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sstmerge_core.errors import Problem, RecipeError

LEAST = 8
"""Runs below which nothing is said of a parameter"""
INSTALL = 'Install it: pip install "sstmerge[search]".'


def installed() -> bool:
    return importlib.util.find_spec("optuna") is not None


def evaluator() -> str:
    """``fANOVA`` where scikit-learn is here, which it is computed with, else ``PED-ANOVA``."""
    return "fANOVA" if importlib.util.find_spec("sklearn") is not None else "PED-ANOVA"


def importances(settings: Sequence[Mapping[str, Any]], values: Sequence[float], *, maximize: bool) -> dict[str, float]:
    """Parameter → its share of what the parameters explain of `values`, the greatest first; the shares add up to 1.

    `settings`: each run's parameters by name; what does not vary, and what some run has not, is left out. Empty of
    fewer than `LEAST` runs, and where nothing varies. Raises RecipeError without optuna.
    """
    if not installed():
        raise RecipeError(Problem("parameter importance", "needs optuna", INSTALL))
    import optuna

    names = [name for name in settings[0] if all(name in one for one in settings)] if settings else []
    varying = {name: [one[name] for one in settings] for name in names}
    varying = {name: column for name, column in varying.items() if len({repr(value) for value in column}) > 1}
    if len(values) < LEAST or not varying or len(set(values)) < 2:
        return {}
    kinds = {name: _distribution(column) for name, column in varying.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for place, value in enumerate(values):
        given = {name: _value(column[place], kinds[name]) for name, column in varying.items()}
        study.add_trial(optuna.trial.create_trial(params=given, distributions=kinds, value=float(value)))
    kind = optuna.importance.FanovaImportanceEvaluator if evaluator() == "fANOVA" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that PED-ANOVA is experimental
        how = kind(seed=0) if kind else optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=how)
    total = sum(found.values())
    return {name: share / total for name, share in found.items()} if total > 0 else {}


def _distribution(column: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column):
        return FloatDistribution(float(min(column)), float(max(column)))
    return CategoricalDistribution(sorted({str(value) for value in column}))


def _value(value: Any, kind: Any) -> Any:
    return float(value) if hasattr(kind, "low") else str(value)
