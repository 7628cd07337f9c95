from __future__ import annotations

import pytest

from docs import metrics as documents
from sstmerge_core import metrics
from sstmerge_core.plots.measures import MEASURES, interval
from sstmerge_core.report.document import figure


def test_the_page_of_metrics_is_the_one_that_the_definitions_give():
    assert documents.PAGE.read_text() == documents.page()


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in ("alpha", "seconds")])
def test_a_metric_is_defined_with_its_formula_where_a_reader_meets_it(name):
    measure = MEASURES[name]
    assert measure.formula
    assert measure.formula in measure.definition and measure.help in measure.definition


def test_every_metric_that_is_computed_has_its_section_and_every_headline_one_its_axis():
    for metric in metrics.metrics():
        assert not metric.formula or f"`{metric.name}` · " in documents.page()
        assert not metric.headline or metric.column in MEASURES


def test_an_interval_without_an_upper_end_goes_to_infinity():
    assert interval(0.1634, None) == "[0.163, ∞]"
    assert interval(0.1634, 0.9) == "[0.163, 0.900]"
    assert interval(None, None) == "" == interval(float("nan"), float("nan"))
    assert figure(0.567, 0.163, None, digits=2) == "0.57 [0.16, ∞]"
    assert figure(0.567) == "0.567"
