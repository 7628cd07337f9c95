"""How long a run took, the merge and its measuring together."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "seconds",
    "Duration",
    "cost",
    higher_is_better=False,
    help="Wall time of merge and evaluation.",
    formula=r"t_{\text{end}}-t_{\text{start}}",
    of_run="r.seconds",
    unit="s",
    bounded=False,
)
PLACE = 200
