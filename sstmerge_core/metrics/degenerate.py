"""Share of answers that are empty, repetitive or gibberish."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "degenerate",
    "Degenerate",
    "quality",
    higher_is_better=False,
    help="Share of answers that are empty, repetitive or gibberish.",
    formula=r"\frac{\#\{\text{answers}:\ \text{degenerate}\}}"
    r"{\#\{\text{answers}\}-\#\text{miss or unjudged}}",
    suites=("harmful", "benign", "utility"),
    counts=("degenerate",),
    interval="wilson",
    of_all=True,
)
PLACE = 0
