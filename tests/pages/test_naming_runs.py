"""A run is named on its page, and called so wherever it is shown."""

from __future__ import annotations

import pytest

from sstmerge_core.store import Owner, queries, remarks
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill

NAME = "Harbour *lamp* <b>7</b>"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return fill(Workspace(tmp_path_factory.mktemp("named")), samples=4)


@pytest.fixture(scope="module")
def run_id(workspace) -> str:
    with Owner.open(workspace) as owner:
        owner.ingest()
        runs = queries.leaderboard(owner.cursor(), pairs=["A5_A7"], methods=["sst_gevp"])
        return str(runs.sort_values("resistance")["run_id"].iloc[-1])


def test_a_name_is_given_and_taken_away_on_the_page_of_the_run(workspace, run_id, open_page):
    app = open_page(workspace, "run", run=run_id)
    usual = app.header[0].value
    app.text_input(key=f"run.name.{run_id}").set_value(NAME)
    next(one for one in app.button if one.label == "Save").click().run()
    assert not app.exception and app.header[0].value != usual and "Harbour" in app.header[0].value
    assert any("By its recipe" in one.value for one in app.caption)
    app.text_input(key=f"run.name.{run_id}").set_value("")
    next(one for one in app.button if one.label == "Save").click().run()
    assert app.header[0].value == usual


@pytest.mark.parametrize("page", ["overview", "pareto", "compare", "alpha_curves", "report"])
def test_the_name_stands_on_every_page_that_shows_the_run(workspace, run_id, open_page, page):
    remarks.rename(workspace, run_id, NAME, user="ada")
    query = {"pareto": {"pair": "A5_A7", "run": run_id}, "compare": {"run": run_id}, "report": {"pair": "A5_A7"}}
    app = open_page(workspace, page, **query.get(page, {}))
    assert not app.exception
    assert "Harbour" in _all(app), f"{page} does not call the run by its name"


def _all(app) -> str:
    texts = [str(getattr(node, "proto", "")) for node in _nodes(app._tree)]
    return " ".join(texts)


def _nodes(node):
    for child in getattr(node, "children", {}).values():
        yield child
        yield from _nodes(child)
