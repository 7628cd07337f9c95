"""Two runs on the same prompts: difference, interval, test and effect size of each measure and of their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sstmerge_core.analysis.effects import cohens_h, paired_d
from sstmerge_core.analysis.statistics import (
    RESAMPLES,
    SEED,
    Interval,
    beyond_zero,
    count_units,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_p,
    percentiles,
    resampled_columns,
    student_p,
)

COLUMNS = ("run_id", "measure", "n", "difference", "low", "high", "test", "p_value", "effect", "effect_kind", "p_holm")


class Total(NamedTuple):
    difference: float
    low: float
    high: float
    p_value: float


def compare(
    axes: Mapping[str, pd.DataFrame],
    runs: Sequence[str],
    reference: str,
    *,
    topics: Mapping[str, Sequence[str] | None] | None = None,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Each of `runs` against `reference` on each measure, one row each, columns `COLUMNS`.

    `axes`: measure → prompts × runs; `topics`: measure → each prompt's topic, drawn whole. Rates (0 and 1 only) are
    tested by McNemar with Cohen's h, means by the paired bootstrap with the paired d; intervals are those of the paired
    bootstrap. McNemar takes prompts for independent: where there are topics, rates too are tested by the bootstrap.
    `p_holm` adjusts all runs of a measure together. A run that did not answer the reference's prompts has no row.
    """
    rows = []
    for measure, table in axes.items():
        if reference in table:
            known = [run for run in runs if run in table and run != reference]
            own = (topics or {}).get(measure)
            rows += [_row(measure, run, table[run], table[reference], resamples, own) for run in known]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    for _, group in found.groupby("measure"):
        found.loc[group.index, "p_holm"] = holm(group["p_value"].astype(float))
    return found.astype({"p_holm": float})


def compare_sums(
    axes: Sequence[pd.DataFrame],
    first: str,
    second: str,
    *,
    topics: Sequence[Sequence[str] | None] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Total:
    """Sum of all measures of `first` − that of `second`; each measure's prompts are resampled by themselves.

    `topics`: of each of `axes`, its prompts' topics, which are drawn whole, or None.
    """
    moved = np.zeros(resamples)
    difference = 0.0
    units = []
    for number, table in enumerate(axes):
        own = (table[first] - table[second]).to_numpy(dtype=float)
        clusters = topics[number] if number < len(topics) else None
        moved += resampled_columns(own[:, None], resamples, seed + number, clusters)[:, 0]
        difference += float(own.mean())
        units.append(count_units(own, clusters))
    clustered = any(one is not None for one in topics)
    p_value = student_p(difference, moved, min(units)) if clustered else beyond_zero(moved)
    return Total(difference, *percentiles(moved, min(units)), p_value)


def sum_interval(parts: Sequence[tuple[float, float, float]]) -> Interval:
    """Interval of a sum of independent figures from each one's (value, low, high): MOVER (Zou & Donner 2008)."""
    values = np.asarray(parts, dtype=float)
    total = values[:, 0].sum()
    below, above = np.hypot.reduce(values[:, 0] - values[:, 1]), np.hypot.reduce(values[:, 2] - values[:, 0])
    return Interval(float(total - below), float(total + above))


def _row(
    measure: str, run: str, own: pd.Series, reference: pd.Series, resamples: int, topics: Sequence[str] | None
) -> dict[str, object]:
    first, second = own.to_numpy(dtype=float), reference.to_numpy(dtype=float)
    found = paired_bootstrap(first, second, resamples, clusters=topics)
    row: dict[str, object] = {"run_id": run, "measure": measure, "n": len(first), "difference": found.mean}
    row |= {"low": found.low, "high": found.high}
    rates = bool(np.isin([first, second], (0.0, 1.0)).all())
    if rates:
        row |= {"effect": cohens_h(float(first.mean()), float(second.mean())), "effect_kind": "Cohen's h"}
    else:
        row |= {"effect": paired_d(first, second), "effect_kind": "paired d"}
    if rates and topics is None:
        return row | {"test": "McNemar", "p_value": mcnemar(list(first == 1), list(second == 1)).p_value}
    test = "paired bootstrap" if topics is None else "paired bootstrap by topic"
    return row | {"test": test, "p_value": paired_p(first, second, resamples, clusters=topics)}
