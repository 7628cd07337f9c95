"""Shares of U's utility from a workspace's answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sstmerge_core.report.kept import kept_by_runs, kept_of_picks
from sstmerge_core.store import Owner, queries
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace
from tests.rewritten import rewrite_events
from tests.synthetic_workspace import fill


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Synthetic runs; U answers every fact with its reference, every other run every second one."""
    workspace = fill(Workspace(tmp_path_factory.mktemp("kept")), samples=24)
    for path in workspace.runs.glob("*/events.jsonl"):
        started = next(read_events(path.parent))
        right = 1 if (started.get("method"), started.get("pair")) == ("adapter", "A5") else 2
        rewrite_events(path.parent, partial(_answered, right=right))
    return workspace


def _answered(event: dict[str, Any], right: int) -> dict[str, Any]:
    for place, row in enumerate(event.get("rows") or () if event["event"] == "samples" else ()):
        if row["reference"]:
            row["response"] = row["reference"] if place % right == 0 else "nothing"
    return event


def test_a_share_is_of_u_on_the_same_prompts_and_the_pairs_own_task(workspace: Workspace) -> None:
    with Owner.open(workspace) as owner:
        owner.ingest()
        con = owner.cursor()
        runs = queries.pair_runs(con, "A5_A7", sources=["measured"])
        alone = runs[runs["method"].eq("adapter") & runs["pair"].eq("A5")].iloc[0]
        ids = list(runs["run_id"])
        found = kept_by_runs(con, ids, alone["run_id"], alone["utility_suite"], alone["utility_metric"])
        assert found[alone["run_id"]].value == pytest.approx(1.0)
        others = [own for run, own in found.items() if run != alone["run_id"]]
        assert len(others) == len(ids) - 1, "the base and S, which answered another task as well, are among them"
        assert all(own.low < own.value < own.high and own.value < 0.95 for own in others)
        assert kept_by_runs(con, ids, "unknown", "facts", "rouge_l") == {}
        rows = [{str(key): value for key, value in row.items()} for row in runs.to_dict("records")]
        first = next(row for row in rows if row["run_id"] == alone["run_id"])
        # the leaderboard's figures here are invented, and no share is told that is not of them
        told = kept_of_picks(con, [first, *rows])
        assert told[alone["run_id"]].value == pytest.approx(1.0) and len(told) < len(ids)
        assert kept_of_picks(con, []) == {}
