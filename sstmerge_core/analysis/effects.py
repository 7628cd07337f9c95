"""Effect sizes: how large a difference is, whatever the number of prompts or seeds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

MAGNITUDES = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"))
"""Upper bounds of |h| and |d| (Cohen 1988); beyond the last it is large."""


def cohens_h(rate: float, reference: float) -> float:
    """Cohen's h of two rates: 2·asin√rate − 2·asin√reference (Cohen 1988, ch. 6). Raises ValueError for no rates."""
    if not (0.0 <= rate <= 1.0 and 0.0 <= reference <= 1.0):
        raise ValueError(f"{rate:g} and {reference:g} are not both rates")
    return 2.0 * (math.asin(math.sqrt(rate)) - math.asin(math.sqrt(reference)))


def hedges_g(own: ArrayLike, reference: ArrayLike) -> float | None:
    """Difference of two independent samples' means, (n,) and (m,), in pooled standard deviations, unbiased.

    Hedges 1981, eq. 6e with the exact correction. None where there is no variance, or fewer than two values a side.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (own, reference))
    df = first.size + second.size - 2
    if min(first.size, second.size) < 2 or (np.ptp(first) == 0 and np.ptp(second) == 0):
        return None
    pooled = math.sqrt(((first.size - 1) * first.var(ddof=1) + (second.size - 1) * second.var(ddof=1)) / df)
    correction = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return correction * float(first.mean() - second.mean()) / pooled


def paired_d(own: ArrayLike, reference: ArrayLike) -> float | None:
    """Mean difference over the same prompts (n,) in standard deviations of that difference (Cohen's d_z).

    None where the difference does not vary. Raises ValueError for different prompts.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (own, reference))
    if first.shape != second.shape:
        raise ValueError("both runs need the same prompts")
    difference = first - second
    return float(difference.mean() / difference.std(ddof=1)) if len(difference) > 1 and np.ptp(difference) else None


def magnitude(effect: float) -> str:
    """``negligible``, ``small``, ``medium`` or ``large`` (Cohen's conventions for h and d)."""
    return next((word for bound, word in MAGNITUDES if abs(effect) < bound), "large")
