"""The Query page: asking, what was asked before, and how an answer is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from sstmerge_core.store import Owner, saved
from sstmerge_core.store.examples import EXAMPLES
from sstmerge_core.store.saved import SavedQuery
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill

Open = Callable[..., AppTest]
BY_METHOD = "SELECT method, count(*) AS runs FROM runs GROUP BY ALL ORDER BY method"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = fill(Workspace(tmp_path_factory.mktemp("query")), samples=4)
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace


@pytest.fixture
def workspace(filled: Workspace) -> Iterator[Workspace]:
    """The filled workspace without what another test has asked or saved."""
    for path in filled.queries.glob("*"):
        path.unlink()
    yield filled
    st.cache_resource.clear()


def ask(app: AppTest, sql: str) -> AppTest:
    app.text_area(key="query.sql").set_value(sql)
    return app.button(key="query.go").click().run()


def open_popover(app: AppTest, name: str) -> AppTest:
    app.session_state[f"query.{name}"] = True
    return app.run()


def link(app: AppTest) -> dict[str, str]:
    return {name: each if isinstance(each, str) else each[-1] for name, each in app.query_params.items()}


def figure(app: AppTest) -> dict[str, Any]:
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def captions(app: AppTest) -> str:
    return "\n".join(caption.value for caption in app.caption)


def test_a_fresh_page_offers_the_examples_and_one_click_answers_one(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query")
    assert not app.exception and not app.query_params
    app.button(key="query.first.3").click().run()
    assert app.text_area(key="query.sql").value == EXAMPLES[3].sql
    assert "best_alpha" in app.dataframe[0].value
    assert link(app)["sql"] == EXAMPLES[3].sql


def test_an_example_made_for_a_picture_is_drawn_as_one(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query")
    app.button(key="query.first.2").click().run()
    assert not app.exception
    assert {trace["mode"] for trace in figure(app)["data"]} == {"lines+markers"}
    said = link(app)
    assert (said["view"], said["kind"], said["x"], said["y"]) == ("chart", "line", "alpha", "resistance")


def test_the_link_shows_the_same_picture(open_page: Open, workspace: Workspace) -> None:
    values = {"view": "chart", "kind": "bar", "x": "method", "y": "runs", "colour": "none"}
    app = open_page(workspace, "query", sql=BY_METHOD, **values)
    assert not app.exception and not app.warning
    assert link(app) == {"sql": BY_METHOD, **values}
    (bars,) = figure(app)["data"]
    assert bars["orientation"] == "h"


def test_a_column_of_the_link_that_is_not_there_is_told(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql=BY_METHOD, view="chart", kind="bar", y="nope")
    assert "y=nope in the link" in app.warning[0].value and app.get("plotly_chart")


def test_another_querys_columns_get_the_picture_that_suits_them(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql=BY_METHOD, view="chart", kind="histogram", x="runs")
    ask(app, "SELECT alpha, resistance, method FROM alpha_curves WHERE source = 'measured'")
    assert link(app)["kind"] == "line" and link(app)["x"] == "alpha"
    app.selectbox(key="query.kind").set_value("scatter").run()
    ask(app, "SELECT alpha, resistance, method FROM alpha_curves WHERE method = 'linear'")
    assert link(app)["kind"] == "scatter", "a choice for the same columns stays"


def test_a_result_without_anything_to_draw_says_so(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql="SELECT method FROM runs WHERE false", view="chart")
    assert not app.exception
    assert any("needs at least one row" in markdown.value for markdown in app.markdown)


def test_rows_beyond_the_limit_are_said_to_be_missing_and_the_buttons_count_what_is_shown(
    open_page: Open, workspace: Workspace
) -> None:
    app = open_page(workspace, "query", sql="SELECT i FROM range(1500) t(i)", limit="1000")
    assert "1,000 rows in" in captions(app) and "there are more" in captions(app)
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["CSV · 1,000 rows", "Parquet · 1,000 rows"]
    app.selectbox(key="query.limit").set_value("5000").run()
    assert "1,500 rows in" in captions(app) and "there are more" not in captions(app)
    assert link(app)["limit"] == "5000"


def test_an_error_shows_its_place_in_the_sql(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql="SELECT label,\n  nope\nFROM runs")
    assert not app.exception
    assert "line 2, column 3" in app.error[0].value and "nope" in app.error[0].value
    assert app.code[0].value == "  nope\n  ^"


def test_nothing_can_be_changed_from_here(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql="DELETE FROM runs")
    assert "Only SELECT is allowed here, not DELETE" in app.error[0].value
    assert ask(app, "SELECT count(*) > 0 AS still FROM runs").dataframe[0].value["still"].tolist() == [True]


def test_the_key_of_a_run_opens_it_in_the_table_and_stays_a_key_in_the_download(
    open_page: Open, workspace: Workspace
) -> None:
    app = open_page(workspace, "query", sql="SELECT run_id FROM runs WHERE source = 'measured' LIMIT 1")
    assert app.dataframe[0].value["run_id"].iloc[0].startswith("run?run=")


def test_choosing_a_chart_asks_nothing_again(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql="SELECT method, random() AS luck FROM runs")
    before = app.dataframe[0].value
    app.segmented_control(key="query.view").set_value("chart").run()
    app.segmented_control(key="query.view").set_value("table").run()
    assert app.dataframe[0].value.equals(before)
    app.button(key="query.go").click().run()
    assert not app.dataframe[0].value.equals(before)


def test_the_schema_browser_names_columns_and_its_button_shows_the_rows(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", table="verdicts")
    columns = next(markdown.value for markdown in app.markdown if "`prompt_id`" in markdown.value)
    assert "What the judge itself wrote" in columns and "varchar" in columns
    app.button(key="query.select").click().run()
    assert app.text_area(key="query.sql").value == "SELECT *\nFROM verdicts\nLIMIT 100"
    assert len(app.dataframe[0].value) == 100


def test_text_that_was_never_run_can_be_brought_back(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query")
    app.text_area(key="query.sql").set_value("SELECT half a thought")
    app.button(key="query.select").click().run()
    app.button(key="query.before").click().run()
    assert app.text_area(key="query.sql").value == "SELECT half a thought"
    assert not [button for button in app.button if button.key == "query.before"]
    assert not app.error, "it is brought back, not run"


def test_a_query_is_saved_with_its_picture_opened_by_anyone_renamed_deleted_and_brought_back(
    open_page: Open, workspace: Workspace
) -> None:
    values = {"view": "chart", "kind": "histogram", "x": "runs", "colour": "none"}
    app = open_page(workspace, "query", sql=BY_METHOD, **values)
    open_popover(app, "saved")
    app.text_input(key="query.name").set_value("Runs by method")
    next(button for button in app.button if button.label == "Save").click().run()
    (kept,) = saved.saved(workspace)
    assert kept.name == "Runs by method" and kept.sql == BY_METHOD and kept.view == values

    colleague = open_popover(open_page(workspace, "query"), "saved")
    colleague.button(key="query.open.0").click().run()
    assert link(colleague)["kind"] == "histogram" and figure(colleague)["data"][0]["type"] == "histogram"

    app.button(key="query.rename.0").click().run()
    next(field for field in app.text_input if field.label == "New name").set_value("By method")
    next(button for button in app.button if button.label == "Rename").click().run()
    assert [query.name for query in saved.saved(workspace)] == ["By method"]

    app.button(key="query.delete.0").click().run()
    assert saved.saved(workspace) == []
    app.button(key="query.undo").click().run()
    assert [(query.name, query.sql) for query in saved.saved(workspace)] == [("By method", BY_METHOD)]


def test_replacing_a_saved_query_can_be_undone(open_page: Open, workspace: Workspace) -> None:
    saved.save(workspace, SavedQuery("mine", "SELECT 1", user="ada"))
    app = open_popover(open_page(workspace, "query", sql="SELECT 2"), "saved")
    app.text_input(key="query.name").set_value("mine")
    next(button for button in app.button if button.label == "Save").click().run()
    assert [query.sql for query in saved.saved(workspace)] == ["SELECT 2"]
    app.button(key="query.undo").click().run()
    assert [(query.sql, query.user) for query in saved.saved(workspace)] == [("SELECT 1", "ada")]


def test_a_name_is_needed_to_save(open_page: Open, workspace: Workspace) -> None:
    app = open_popover(open_page(workspace, "query", sql="SELECT 2"), "saved")
    next(button for button in app.button if button.label == "Save").click().run()
    assert "needs one" in app.error[0].value and saved.saved(workspace) == []


def test_the_history_tells_what_was_asked_and_asks_it_again(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql=BY_METHOD)
    methods = len(app.dataframe[0].value)
    ask(app, "SELECT nope FROM runs")
    newest, oldest = saved.history(workspace)
    assert newest.rows is None and "nope" in newest.error
    assert oldest.sql == BY_METHOD and oldest.rows == methods and 0 < (oldest.seconds or 0) < 10
    open_popover(app, "history")
    assert "failed" in captions(app)
    app.button(key="query.past.1").click().run()
    assert app.text_area(key="query.sql").value == BY_METHOD and not app.error
    assert [past.sql for past in saved.history(workspace)] == [BY_METHOD, "SELECT nope FROM runs"]


def test_a_spoiled_file_of_saved_queries_is_named_in_place(open_page: Open, workspace: Workspace) -> None:
    workspace.queries.mkdir(exist_ok=True)
    (workspace.queries / "saved.json").write_text("[{")
    app = open_popover(open_page(workspace, "query", sql="SELECT 1 AS one"), "saved")
    assert not app.exception and "saved.json" in app.error[0].value
    assert app.dataframe[0].value["one"].tolist() == [1]


def test_an_edit_that_was_not_run_is_told(open_page: Open, workspace: Workspace) -> None:
    app = open_page(workspace, "query", sql="SELECT 1 AS one")
    assert "Edited since" not in captions(app)
    app.text_area(key="query.sql").set_value("SELECT 2 AS two").run()
    assert "Edited since this answer" in captions(app) and app.dataframe[0].value["one"].tolist() == [1]
