"""Whether an answer is the reference."""

from __future__ import annotations

import string

from sstmerge_core.metrics.declare import Metric

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(reference: str, response: str) -> bool:
    """Equal but for case, punctuation and white space."""
    return _bare(reference) == _bare(response)


def _bare(text: str) -> str:
    return " ".join(text.casefold().translate(_PUNCTUATION).split())


METRIC = Metric(
    "exact_match",
    "Exact match",
    "utility",
    higher_is_better=True,
    help="Share of answers that are the reference, but for case, spaces and punctuation.",
    formula=r"\frac{\#\{i:\ \text{answer}_i=\text{reference}_i\}}{n}",
    suites=("utility",),
    score=exact_match,
    interval="wilson",
)
PLACE = 1
