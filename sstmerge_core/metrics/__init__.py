"""The metrics: a file each, which declares a `Metric` as ``METRIC``. Imports no torch.

A file put into this folder is a metric: the leaderboard gets its column, Pareto its axis, Compare its line, the docs
their section; `sstmerge score` computes it from answers that were stored before it existed.
"""

from __future__ import annotations

import difflib
import math
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.metrics import reasoning
from sstmerge_core.metrics.declare import ROLES, Metric

__all__ = [
    "Metric",
    "by_encoder",
    "default_utility",
    "get",
    "metrics",
    "named",
    "outcomes",
    "role_of",
    "utility",
    "without_judge",
]

DEFAULT_UTILITY = "rouge_l"
"""What measures a utility suite that declares nothing else"""


@cache
def metrics() -> tuple[Metric, ...]:
    """Every metric, in the order in which figures are read: by role, headline ones first, then as their files say."""
    modules = (import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    declared = [(module.METRIC, getattr(module, "PLACE", 100)) for module in modules if hasattr(module, "METRIC")]
    declared.sort(key=lambda one: (ROLES.index(one[0].role), not one[0].headline, one[1], one[0].name))
    return tuple(metric for metric, _ in declared)


@cache
def _by_name() -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics()}


def named() -> Mapping[str, Metric]:
    """name → metric, in the order of `metrics`."""
    return _by_name()


def get(name: str) -> Metric:
    """The metric called `name`. Raises RecipeError naming the nearest ones."""
    found = _by_name().get(name)
    if found is None:
        near = difflib.get_close_matches(name, _by_name(), 2)
        fix = f"Did you mean {' or '.join(near)}?" if near else f"Known metrics: {', '.join(_by_name())}."
        raise RecipeError(Problem(f"metric {name}", "there is no such metric", fix))
    return found


def role_of(name: str) -> str:
    """The role of a metric; empty for a name that nobody declares (of a newer version, or a harness's own)."""
    found = _by_name().get(name)
    return found.role if found else ""


def utility() -> tuple[str, ...]:
    """Names of the metrics that a utility suite may declare; its own answers are scored by them."""
    own = [metric.name for metric in metrics() if metric.role == "utility" and metric.of_answers]
    return tuple(sorted(own, key=lambda name: name != DEFAULT_UTILITY))


def by_encoder() -> tuple[str, ...]:
    """Names of the metrics that an encoder computes of answers."""
    return tuple(metric.name for metric in metrics() if metric.encoder is not None)


def default_utility(declared: str | None) -> str:
    """The metric of a utility suite by what its recipe says: empty stands for ROUGE-L."""
    return declared or DEFAULT_UTILITY


def without_judge() -> frozenset[str]:
    """What may stand in a row's judge column although no judge was asked."""
    return frozenset(metric.computed_by for metric in metrics() if not metric.judged and not metric.relative)


def outcomes(name: str, samples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The score of each answer by prompt id, what the metric is the mean of; samples without a reference are left out.

    `samples` are rows of the ``samples`` event. What an encoder says of an answer was stored with it, as ``scored``,
    where its suite declares that metric: other answers are left out. Raises RecipeError for a metric that scores none.
    """
    metric = get(name)
    if metric.encoder is not None:
        known = ((row["prompt_id"], row.get("scored")) for row in samples)
        return {prompt: float(value) for prompt, value in known if value is not None and not math.isnan(value)}
    score = metric.score
    if score is None:
        raise RecipeError(Problem(f"metric {name}", "scores no answers", f"Use {', '.join(utility())}."))
    usable = samples if metric.without_reference else (row for row in samples if row.get("reference"))
    said = str if metric.whole else reasoning.answer
    return {row["prompt_id"]: float(score(row.get("reference") or "", said(row["response"]))) for row in usable}
