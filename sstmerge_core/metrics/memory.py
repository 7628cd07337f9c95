"""The most memory that a run's process had in use at once."""

from sstmerge_core.metrics.declare import Metric

METRIC = Metric(
    "memory",
    "Peak memory",
    "cost",
    higher_is_better=False,
    help="Most memory in use at once, of the GPU where there is one; heavier runs of the same job before it count too.",
    formula=r"\max_t\ \text{bytes in use}(t)\,/\,10^9",
    of_run="r.peak_memory_bytes / 1e9",
    unit="GB",
    bounded=False,
)
PLACE = 201
