"""How long a model reasons before it answers."""

from __future__ import annotations

from sstmerge_core.metrics.declare import Metric
from sstmerge_core.metrics.reasoning import parted


def thought_length(reference: str, response: str) -> float:
    """Words of the reasoning that a response begins with; `reference` has no say."""
    return float(len(parted(response)[0].split()))


METRIC = Metric(
    "thought_length",
    "Thought length",
    "quality",
    higher_is_better=False,
    help="Words that a model reasons before it answers, where it does; answers are judged without them.",
    formula=r"\frac1n\sum_i|\text{reasoning}_i|",
    suites=("harmful", "benign", "utility"),
    score=thought_length,
    where_any=True,
    without_reference=True,
    whole=True,
    interval="bootstrap",
    bounded=False,
    unit="words",
    headline=False,
)
PLACE = 9
