from __future__ import annotations

import json

import pytest

from sstmerge_core.cli import main
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill

KEYS = {"goal", "pair", "feasible", "run_id", "label", "resistance", "over_refusal", "utility", "n"}


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    workspace = fill(Workspace(tmp_path / "w"))
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    return workspace


def test_one_object_a_pair_and_goal_and_no_feasible_pick_is_over_the_limit(workspace, capsys) -> None:
    assert main(["pick", "--json", "--max-over-refusal", "0.3"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(one) >= KEYS for one in found)
    assert {one["goal"] for one in found} == {"balanced", "safety_first", "utility_first"}
    feasible = [one for one in found if one["feasible"]]
    assert feasible and all(one["over_refusal"] <= 0.3 and one["n"] > 0 for one in feasible)


def test_people_read_a_table_with_the_reason(workspace, capsys) -> None:
    assert main(["pick", "--pair", "A5_A7"]) == 0
    told = capsys.readouterr().out
    assert "within limits" in told and "Balanced" in told and "n = " in told and "judge refusal_regex" in told


def test_a_pair_without_merges_and_a_limit_that_is_no_share_are_refused_in_one_line(workspace, capsys) -> None:
    assert main(["pick", "--pair", "nobody"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nobody" in error and "A5_A7" in error
    with pytest.raises(SystemExit):
        main(["pick", "--max-over-refusal", "20"])
    assert "from 0 to 1" in capsys.readouterr().err
