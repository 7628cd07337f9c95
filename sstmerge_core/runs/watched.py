"""What a run tells as it works: how far a batch is, and the newest answers with their verdicts. Nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sstmerge_core.evaluate.judge import Judge, OneByOne, judge_samples
from sstmerge_core.jobs.model import SHOWN
from sstmerge_core.recipe import Suite
from sstmerge_core.runs.session import Session

TELL_SECONDS = 0.5
"""Between two tellings; a token may take a hundredth of that, and a batch of answers a minute"""
JUDGED_AT_ONCE = 16
"""Answers that a judge which is a model gets between two tellings: one of its batches"""

Within = Callable[[int, int, int, int], None]
"""Answers finished before this batch, answers in it, of those the ended ones, and tokens that the others have"""


def within(session: Session, suite: Suite, stage: str = "") -> Within:
    """Tells how far a batch of answers to `suite` is; with `stage`, also as work done. Raises Cancelled when asked to.

    Of a batch as much counts as done as its longest answers have of the tokens they may have at most: the time that a
    batch takes goes by its tokens, and mostly one of its answers uses them all.
    """
    told = 0.0

    def tell(finished: int, size: int, ended: int, tokens: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told < TELL_SECONDS:
            return
        told = now
        if stage:
            session.progress(stage, finished + size * min(1.0, tokens / suite.max_new_tokens), suite.n)
        else:
            session.stop_if_asked()
        count = f"{suite.name} {finished + ended}/{suite.n}"
        session.onlooker.detail(f"{count} · token {tokens} of at most {suite.max_new_tokens}")

    return tell


def show(session: Session, suite: str, samples: Sequence[Mapping[str, Any]], judge: Judge) -> None:
    """Show the last of `samples`, with their verdicts where `judge` needs no model to give them at once."""
    newest = samples[-SHOWN:]
    labels: dict[str, str] = {}
    if isinstance(judge, OneByOne):
        labels = {row["prompt_id"]: row["label"] for row in judge_samples(judge, newest)}
    _show(session, suite, newest, labels)


def judged(
    judge: Judge, suite: str, samples: Sequence[Mapping[str, Any]], session: Session, before: int, total: int
) -> list[dict[str, Any]]:
    """`judge_samples`, shown as they come: `before` of `total` answers were judged already."""
    found: dict[str, dict[str, Any]] = {}
    for part in _parts(judge, samples):
        verdicts = judge_samples(judge, part)
        found |= {row["prompt_id"]: row for row in verdicts}
        _show(session, suite, part[-SHOWN:], {row["prompt_id"]: row["label"] for row in verdicts})
        session.progress("judge", before + len(found), total)
    return [found[sample["prompt_id"]] for sample in samples]


def _parts(judge: Judge, samples: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """All at once where that takes no time; else parts of like length, as such a judge itself would batch them."""
    if isinstance(judge, OneByOne):
        yield samples
        return
    ordered = sorted(samples, key=lambda sample: -len(sample["prompt"]) - len(sample["response"]))
    for start in range(0, len(ordered), JUDGED_AT_ONCE):
        yield ordered[start : start + JUDGED_AT_ONCE]


def _show(session: Session, suite: str, samples: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    session.onlooker.answers(
        [
            {"suite": suite, "label": labels.get(sample["prompt_id"])}
            | {name: sample[name] for name in ("prompt", "response")}
            for sample in samples
        ]
    )
