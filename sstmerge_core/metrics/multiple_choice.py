"""Whether an answer names the right choice."""

from __future__ import annotations

import re

from sstmerge_core.metrics.declare import Metric

_LETTER = re.compile(r"(?<![A-Za-z'’])\(?([A-Ja-j])[).:]?(?![A-Za-z'’])")


def multiple_choice(reference: str, response: str) -> bool:
    """Whether the choice that the response names is the reference's: the first letter A to J that stands alone.

    A lower-case "a" or "i" within a sentence is a word, not a choice.
    """
    return choice(response) is not None and choice(response) == choice(reference)


def choice(text: str) -> str | None:
    """The first letter that stands alone; a lower-case one only where it is the whole text or has a mark behind it."""
    for match in _LETTER.finditer(text):
        alone = text.strip().strip("().:") == match[1]
        if alone or match[0][-1] in ").:" or (match[1].isupper() and match[1] not in "AI"):
            return match[1].upper()
        if match[1] in "AI" and not re.match(r"\s+[a-z]", text[match.end() :]):  # "A dog …" and "I think …" are words
            return match[1]
    return None


METRIC = Metric(
    "multiple_choice",
    "Multiple choice",
    "utility",
    higher_is_better=True,
    help="Share of answers whose first letter that stands alone is the reference's.",
    formula=r"\frac{\#\{i:\ \text{choice}_i=\text{reference}_i\}}{n}",
    suites=("utility",),
    score=multiple_choice,
    interval="wilson",
)
PLACE = 2
