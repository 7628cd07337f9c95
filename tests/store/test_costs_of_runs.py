"""Seconds, memory and tokens of a run are measures like the others: declared once, on the leaderboard and as axes."""

from __future__ import annotations

import pytest

from sstmerge_core import metrics
from sstmerge_core.plots.measures import AXES, MEASURES
from sstmerge_core.store import queries
from tests.store.conftest import write_run


def test_what_a_run_took_stands_on_the_leaderboard(workspace, owner):
    write_run(workspace, "aaaa")
    owner.ingest()
    row = queries.leaderboard_row(owner.cursor(), "aaaa")
    lengths = owner.cursor().execute("SELECT avg(n_tokens) FROM samples WHERE run_id = 'aaaa'").fetchone()
    assert row is not None and lengths is not None
    assert (row["seconds"], row["memory"]) == (3.0, 10.0) and row["tokens"] == pytest.approx(lengths[0])


@pytest.mark.parametrize("name", ["seconds", "memory", "tokens"])
def test_each_is_declared_in_one_place_and_can_be_an_axis(name):
    metric = metrics.get(name)
    assert metric.of_run and metric.role == "cost" and not metric.interval
    assert name in AXES and MEASURES[name].title == metric.title and not MEASURES[name].higher_is_better
