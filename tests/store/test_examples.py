"""The dozen examples and the words for every column."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sstmerge_core.plots import result as picture
from sstmerge_core.store import Owner, dictionary, queries, run_sql
from sstmerge_core.store.examples import EXAMPLES, Example
from sstmerge_core.upkeep import shipped as demo
from sstmerge_core.workspace import Workspace
from tests.synthetic_workspace import fill

IDS = [example.title for example in EXAMPLES]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    with Owner.open(fill(Workspace(tmp_path_factory.mktemp("synthetic")))) as owner:
        owner.ingest()
        yield owner


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("demo")).create()
    demo.install(workspace)
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace


def test_there_are_a_dozen_and_no_two_alike() -> None:
    assert len(EXAMPLES) >= 12
    for part in ("title", "teaches", "sql"):
        assert len({getattr(example, part) for example in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_an_example_has_an_answer_in_the_shipped_demo_and_is_drawn_as_it_says(
    shipped: Workspace, example: Example
) -> None:
    answer = run_sql(shipped, example.sql, limit=5000)
    assert answer.rows and not answer.truncated
    _is_drawn(answer.frame(), example)


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_an_example_has_an_answer_in_the_synthetic_workspace(synthetic: Owner, example: Example) -> None:
    frame = synthetic.cursor().execute(f"SELECT * FROM (\n{example.sql}\n) LIMIT 5001").df()
    assert 0 < len(frame) <= 5000
    _is_drawn(frame, example)


def test_together_they_visit_every_table_of_results() -> None:
    sql = " ".join(example.sql for example in EXAMPLES)
    for table in ("leaderboard", "front", "alpha_curves", "runs", "metrics", "samples", "verdicts", "module_stats"):
        assert table in sql
    assert "spectra" in sql and "events" in sql


def test_every_table_and_column_is_described_and_nothing_else_is(synthetic: Owner) -> None:
    schema = queries.schema(synthetic.cursor())
    assert set(schema["table"]) == set(dictionary.TABLES)
    described = {(row.table, row.column) for row in schema.itertuples() if dictionary.describe(row.table, row.column)}
    assert described == {(row.table, row.column) for row in schema.itertuples()}
    assert set(dictionary.COLUMNS) <= set(schema["column"]) and set(dictionary.EXCEPTIONS) <= described


@pytest.mark.parametrize("table", dictionary.TABLES)
def test_the_select_of_every_table_runs(synthetic: Owner, table: str) -> None:
    synthetic.cursor().execute(dictionary.selection(table))


def _is_drawn(frame: object, example: Example) -> None:
    chart = picture.usable(frame, example.view)
    if example.view:
        assert chart is not None
        assert {name: getattr(chart, name) or "" for name in ("kind", "x", "y")} == {
            name: example.view[name] for name in ("kind", "x", "y")
        }
        assert chart.colour == (example.view["colour"] or picture.NONE)
        assert picture.figure(frame, chart).data
