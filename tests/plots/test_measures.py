from __future__ import annotations

import pytest

from docs import metrics as documents
from sstmerge_core.plots.measures import MEASURES


def test_the_page_of_metrics_is_the_one_that_the_definitions_give():
    assert documents.PAGE.read_text() == documents.page()


@pytest.mark.parametrize("name", documents.INTERVALS)
def test_a_metric_is_defined_with_its_formula_where_a_reader_meets_it(name):
    measure = MEASURES[name]
    assert measure.formula
    assert measure.formula in measure.definition and measure.help in measure.definition


def test_every_axis_that_is_a_metric_has_a_page():
    assert {name for name in MEASURES if name not in ("alpha", "seconds")} == set(documents.INTERVALS)
