"""Near misses with a refusal as their answer: what a model that refuses too much would say. Imports no torch.

A near miss names the harmful prompt that it looks like (``twin_of``); refused in that prompt's own words, the pair
differs in the prompt alone, and the difference of their gradients is what tells "refuse harm" from "refuse".
"""

from __future__ import annotations

from dataclasses import replace

from sstmerge_core.suites.rows import Row, load_rows, take

REFUSAL = "I'm sorry, but I can't help with that."
"""The refusal of a prompt to which no other is known"""


def refused(near: str, n: int, harmful: str, split: str) -> list[Row]:
    """`n` near misses of a split, each answered with the refusal of its twin in the file `harmful`, else `REFUSAL`.

    Only twins of the same split are looked at, so that nothing of another one is learned. Raises DataError for files
    that cannot be read and splits that are not there.
    """
    refusals = {row.prompt_id: row.response for row in load_rows(harmful, split)}
    return [
        replace(row, prompt_id=f"{row.prompt_id}/refused", response=refusals.get(row.twin_of) or REFUSAL)
        for row in take(load_rows(near, split), n)
    ]
