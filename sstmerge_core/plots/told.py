"""What the figures of some runs rest on, in words: which prompts, how many, which judge, how many seeds."""

from __future__ import annotations

import pandas as pd

from sstmerge_core import words

_COUNTS = ("resistance_n", "over_refusal_n", "utility_n")


def told_on(runs: pd.DataFrame) -> str:
    """``Measured on test prompts, n = 64 a suite, judge refusal_regex_v2, one seed a run.``

    `runs`: leaderboard rows; empty where none was measured here.
    """
    own = runs[runs["source"].eq("measured")]
    if own.empty:
        return ""
    splits = " and ".join(sorted(own["split"].dropna().unique(), reverse=True)) or "unknown"
    counts = own[[name for name in _COUNTS if name in own]].to_numpy(dtype=float, na_value=float("nan")).ravel()
    known = counts[counts > 0]
    parts = [f"Measured on {words.plain(splits)} prompts"]
    if len(known):
        least, most = int(known.min()), int(known.max())
        parts.append(f"n = {least if least == most else f'{least:,} to {most:,}'} a suite")
    judges = sorted(own["judge"].dropna().unique()) if "judge" in own else []
    parts += [f"judge {words.plain(' and '.join(judges))}"] if judges else []
    return f"{', '.join(parts)}, one seed a run."
