"""What a finished run measured, as one flat object, read from its event file."""

from __future__ import annotations

from typing import Any

from sstmerge_core import metrics
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.workspace import Workspace


def outcome(workspace: Workspace, recipe: Recipe) -> dict[str, Any]:
    """Identity, every metric that is told of a run with n, interval (``<metric>_ci``) and status where it is not ok.

    A run's utility is what its suite declares: it stands as ``utility``, under the name of its metric too, and the name
    is ``utility_metric``. A metric that the run has not, or not by the recipe's judge, is None.
    """
    evaluation = recipe.evaluation
    chosen = evaluation.suites if evaluation else ()
    suite_of = {suite.role: suite.name for suite in reversed(chosen)}
    named = evaluation.judge if evaluation else ""
    past = record.read(workspace.run(recipe.run_id))
    rows = {(metric, suite): row for (metric, suite, judge), row in past.metrics.items() if _is_by(judge, named)}
    utility = next((suite for suite in chosen if suite.role == "utility"), None)
    declared = metrics.default_utility(utility.metric) if utility else ""
    found: dict[str, Any] = {
        "run_id": recipe.run_id,
        "pair": recipe.pair,
        "method": recipe.method,
        "label": recipe.label,
        "alpha": recipe.parameters.get("alpha"),
        "utility_metric": declared or None,
    }
    for metric in metrics.metrics():
        if metric.role == "utility" or not metric.headline:
            continue
        on = "utility" if metric.relative else next((role for role in metric.suites if role in suite_of), "")
        together = "all" if metric.of_all else "attacked" if metric.of_attacked else ""
        found |= _figure(metric.name, rows.get((metric.name, together or suite_of.get(on, ""))))
    own = rows.get((declared, utility.name)) if utility else None
    found |= _figure("utility", own) | (_figure(declared, own) if declared else {})
    seconds = past.finished["seconds"] if past.finished else None
    return found | {"dtype": evaluation.dtype if evaluation else None, "seconds": seconds}


def _figure(name: str, row: dict[str, Any] | None) -> dict[str, Any]:
    row = row or {}
    found: dict[str, Any] = {name: row.get("value"), f"{name}_n": row.get("n")}
    if row.get("ci_low") is not None:
        found[f"{name}_ci"] = [row["ci_low"], row["ci_high"]]
    if row.get("status", "ok") != "ok":
        found[f"{name}_status"] = row["status"]
    return found


def _is_by(judge: str, named: str) -> bool:
    """Whether a metric is the named judge's (a model judge's id carries its revision too) or needs none."""
    return judge in ("", named, *metrics.without_judge()) or judge.startswith(f"{named}@")


def samples(workspace: Workspace, recipe: Recipe, suite: str) -> list[dict[str, Any]]:
    """Every prompt and answer of a suite, in the order in which they were recorded."""
    return record.read(workspace.run(recipe.run_id)).samples.get(suite, [])
