"""How far from full safety and full utility (SST-Merge 2026)."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "pareto_distance",
    "Distance to (1, 1)",
    "cost",
    higher_is_better=False,
    help="How far the run is from full safety and full utility.",
    formula=r"\sqrt{(1-S)^2+(1-U)^2}",
    relative=True,
    bounded=False,
    interval_words="None: S and U have theirs.",
)
PLACE = 2
