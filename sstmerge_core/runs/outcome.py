"""What a finished run measured, as one flat object, read from its event file."""

from __future__ import annotations

from typing import Any

from sstmerge_core.evaluate.metrics import WITHOUT_JUDGE
from sstmerge_core.recipe import Recipe
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace

OUTCOMES = ("resistance", "asr", "over_refusal", "degenerate", "rouge_l", "safety_tax")


def outcome(workspace: Workspace, recipe: Recipe) -> dict[str, Any]:
    """Identity, the main metrics with n, interval (``<metric>_ci``) and status where it is not ok, dtype and seconds.

    Beside ROUGE-L stands the utility suite's own metric, where it has one. A metric that the run has not, or not by the
    recipe's judge, is None.
    """
    evaluation = recipe.evaluation
    suites = {suite.role: suite.name for suite in evaluation.suites} if evaluation else {}
    named = evaluation.judge if evaluation else ""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    seconds = None
    for event in read_events(workspace.run(recipe.run_id)):
        if event["event"] == "metrics":
            own = [row for row in event["rows"] if _is_by(row.get("judge") or "", named)]
            rows |= {(row["metric"], row["suite"]): row for row in own}
        elif event["event"] == "run_finished":
            seconds = event["seconds"]
    places = {
        "resistance": suites.get("harmful"),
        "asr": suites.get("harmful"),
        "over_refusal": suites.get("benign"),
        "degenerate": "all",
        "rouge_l": suites.get("utility"),
        "safety_tax": suites.get("utility"),
    }
    places |= {suite.metric: suite.name for suite in evaluation.suites if suite.metric} if evaluation else {}
    found: dict[str, Any] = {
        "run_id": recipe.run_id,
        "pair": recipe.pair,
        "method": recipe.method,
        "label": recipe.label,
        "alpha": recipe.parameters.get("alpha"),
    }
    for metric, suite in places.items():
        row = rows.get((metric, suite or ""), {})
        found |= {metric: row.get("value"), f"{metric}_n": row.get("n")}
        if row.get("ci_low") is not None:
            found[f"{metric}_ci"] = [row["ci_low"], row["ci_high"]]
        if row.get("status", "ok") != "ok":
            found[f"{metric}_status"] = row["status"]
    return found | {"dtype": evaluation.dtype if evaluation else None, "seconds": seconds}


def _is_by(judge: str, named: str) -> bool:
    """Whether a metric is the named judge's (a model judge's id carries its revision too) or needs none."""
    return judge in ("", named, *WITHOUT_JUDGE) or judge.startswith(f"{named}@")


def samples(workspace: Workspace, recipe: Recipe, suite: str) -> list[dict[str, Any]]:
    """Every prompt and answer of a suite, in the order in which they were recorded."""
    events = read_events(workspace.run(recipe.run_id))
    batches = [event["rows"] for event in events if event["event"] == "samples" and event["suite"] == suite]
    return [row for batch in batches for row in batch]
