"""Whether an answer ends in the right number."""

from __future__ import annotations

import re

from sstmerge_core.metrics.declare import Metric

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def numeric(reference: str, response: str) -> bool:
    """Whether the last numbers of both are equal; GSM8K's references end in ``#### 42`` (arXiv:2110.14168)."""
    ours, theirs = number(response), number(reference)
    return ours is not None and ours == theirs


def number(text: str) -> float | None:
    """The last number in a text, thousands separators taken out."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


METRIC = Metric(
    "numeric",
    "Last number",
    "utility",
    higher_is_better=True,
    help="Share of answers whose last number is the reference's last number.",
    formula=r"\frac{\#\{i:\ \text{number}_i=\text{number of reference}_i\}}{n}",
    suites=("utility",),
    score=numeric,
    interval="wilson",
)
PLACE = 3
