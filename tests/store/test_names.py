"""A run's own name: recorded with who gave it, shown instead of the recipe's, and taken back by an empty one."""

from __future__ import annotations

import pytest

from sstmerge_core.cli import main
from sstmerge_core.errors import StoreError
from sstmerge_core.plots.table import named
from sstmerge_core.store import queries, rebuild, remarks, trash
from sstmerge_core.store.events import read_events
from sstmerge_core.words import run_name
from tests.store.conftest import write_run
from tests.there import there

USUAL = "Linear α=0.5"


@pytest.fixture
def run_id(workspace) -> str:
    write_run(workspace, "aaaa", label=USUAL)
    return "aaaa"


def label(owner, run_id: str) -> str:
    owner.ingest()
    return there(queries.leaderboard_row(owner.cursor(), run_id))["label"]


def test_a_name_is_shown_instead_of_the_recipes_until_it_is_taken_back(workspace, owner, run_id):
    assert remarks.rename(workspace, run_id, "  the   safe one ", user="ada") == "the safe one"
    assert label(owner, run_id) == "the safe one"
    row = there(queries.leaderboard_row(owner.cursor(), run_id))
    assert (row["own_name"], row["recipe_label"]) == ("the safe one", USUAL)
    known = there(queries.run(owner.cursor(), run_id))
    assert (known["own_name"], known["named_by"], known["label"]) == ("the safe one", "ada", USUAL)
    remarks.rename(workspace, run_id, "", user="bob")
    assert label(owner, run_id) == USUAL and there(queries.run(owner.cursor(), run_id))["own_name"] is None
    said = [event for event in read_events(workspace.annotations / run_id) if event["event"] == "named"]
    assert [(event["name"], event["user"]) for event in said] == [("the safe one", "ada"), ("", "bob")]


def test_a_name_outlives_the_database_and_a_second_start_of_the_run(workspace, owner, run_id):
    remarks.rename(workspace, run_id, "mine")
    write_run(workspace, run_id, label=USUAL)
    assert label(owner, run_id) == "mine"
    owner.close()
    rebuild(workspace)
    with type(owner).open(workspace) as again:
        assert label(again, run_id) == "mine"


def test_a_name_goes_with_the_file_that_says_it(workspace, owner, run_id):
    remarks.rename(workspace, run_id, "mine")
    assert label(owner, run_id) == "mine"
    (workspace.annotations / run_id / "events.jsonl").unlink()
    assert label(owner, run_id) == USUAL


def test_what_is_in_the_trash_is_called_by_its_own_name(workspace, owner, run_id):
    remarks.rename(workspace, run_id, "mine")
    assert trash.delete_run(workspace, run_id).label == "mine"


def test_names_too_long_and_unknown_runs_are_refused(workspace, run_id):
    with pytest.raises(StoreError, match="too many"):
        remarks.rename(workspace, run_id, "x" * (remarks.LONGEST_NAME + 1))
    with pytest.raises(StoreError, match="no such run"):
        remarks.rename(workspace, "bbbb", "x")


def test_the_command_line_gives_and_takes_a_name(workspace, owner, run_id, monkeypatch):
    monkeypatch.setenv("SSTMERGE_WORKSPACE", str(workspace.root))
    owner.close()
    assert main(["runs", "name", run_id, "mine"]) == 0
    with type(owner).open(workspace) as again:
        assert label(again, run_id) == "mine"
    assert main(["runs", "name", run_id]) == 0
    with type(owner).open(workspace) as again:
        assert label(again, run_id) == USUAL


def test_runs_of_one_name_are_told_apart_by_n_split_and_seed(workspace, owner):
    for number in range(4):
        write_run(workspace, f"run{number}", label=USUAL)
    owner.ingest()
    runs = queries.leaderboard(owner.cursor(), sources=["measured"]).sort_values("run_id", ignore_index=True)
    runs = runs.assign(resistance_n=[16, 64, 64, 64], seed=[0, 0, 1, 1], split=["test", "test", "test", "selection"])
    first = USUAL
    found = named(runs)["name"].tolist()
    assert found == [f"{first} · n=16", f"{first} · n=64 · seed 0", f"{first} · n=64 · seed 1", f"{first} · selection"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"method": "adapter", "pair": "A5", "label": "A5"}, "A5 alone"),
        ({"method": "adapter", "pair": "A5", "label": "x", "own_name": "x"}, "x"),
        ({"method": "linear", "pair": "A5_A7", "label": "Linear", "own_name": float("nan")}, "Linear"),
        ({"method": "linear", "run_id": "r", "label": None}, "linear"),
    ],
)
def test_a_run_is_called_by_its_own_name_then_by_its_adapter_then_by_its_recipe(row, name):
    assert run_name(row) == name
