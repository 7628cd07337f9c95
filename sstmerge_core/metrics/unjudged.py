"""Share of answers in a language that the judge does not cover: in no other rate, shown where any occur."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "unjudged",
    "Unjudged",
    "quality",
    higher_is_better=False,
    help="Share of answers in a language that the judge does not cover: in no other rate, shown where any occur.",
    formula=r"\frac{\#\{\text{answers}:\ \text{unjudged}\}}{\#\{\text{answers}\}}",
    suites=("harmful", "benign", "utility"),
    counts=("unjudged",),
    of_all=True,
    where_any=True,
    of_unjudged=True,
    interval="wilson",
    headline=False,
)
PLACE = 3
