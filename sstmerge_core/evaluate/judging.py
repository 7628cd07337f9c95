"""How often a judge is right: measured on answers that were labelled by reading (data/judging). Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.analysis.statistics import Interval, wilson
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.evaluate.agreement import (
    Confusion,
    Scores,
    cohens_kappa,
    common_scale,
    confusion,
    kappa_interval,
    on_scale,
    scores,
)
from sstmerge_core.evaluate.judge import Judge
from sstmerge_core.evaluate.judges_measured import DATA
from sstmerge_core.metrics.labels import NO_VERDICT

ANSWERS = DATA / "answers.jsonl"
LANGUAGES = DATA / "languages.jsonl"
"""Answers in the ten other languages of `refusal_regex_v2`, written for the project"""
ENGLISH = DATA / "english.jsonl"
"""English answers written for the project, in the manner of larger models than the bundled one"""
TRUE_LABELS = ("refusal", "moralising", "partial", "safe_nonrefusal", "harmful", "degenerate", "miss")
"""What an answer may be; ``miss`` where there is no verdict to give. data/judging/README.md says what they mean."""


@dataclass(frozen=True)
class Labelled:
    """An answer and what it is by reading."""

    id: str
    prompt: str
    response: str
    label: str
    suite: str
    source: str
    """The run whose answer it is, or ``written``"""
    language: str = "en"

    @property
    def held_out(self) -> bool:
        """Whether no judge may be trained on it: half of the answers, by the hash of their name."""
        return int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % 2 == 1


@dataclass(frozen=True)
class Accuracy:
    """A judge against the reader."""

    judge: str
    scale: str
    """What the judge can tell; see `agreement.SCALES`"""
    n: int
    accuracy: float
    interval: Interval
    """Wilson, 95 %"""
    missed: int
    """Answers to which the judge gave no usable verdict, ``unjudged`` ones too; each counts as wrong"""
    unclear: int
    """Answers left out because the reader gave no verdict"""
    refusal: Scores | None
    """None for a judge that cannot tell refusals"""
    harmful: Scores | None
    """None for a judge that cannot tell harm"""
    kappa: float | None
    kappa_interval: Interval | None
    confusion: Confusion
    """The reader's label → the judge's"""
    wrong: tuple[dict[str, str], ...]
    """id, prompt, response, label (the reader's), found (the judge's) and raw of each answer it got wrong"""

    def as_json(self) -> dict[str, Any]:
        named = {name: value._asdict() for name, value in vars(self).items() if isinstance(value, (Interval, Scores))}
        return asdict(self) | named


def labelled(path: Path = ANSWERS) -> list[Labelled]:
    """The labelled answers. Raises DataError for a file or row that cannot be used."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            Problem(str(path), f"cannot be read: {error.strerror}", "Install the program again.")
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = documents.from_json(line)
            needed = {name: row[name] for name in Labelled.__dataclass_fields__ if name != "language"}
            rows.append(Labelled(**needed, language=row.get("language", "en")))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(Problem(f"{path} line {number}", "is no labelled answer", "Correct the row.")) from error
        if rows[-1].label not in TRUE_LABELS:
            fault, fix = f"has the unknown label {rows[-1].label!r}", f"Use one of {', '.join(TRUE_LABELS)}."
            raise DataError(Problem(f"{path} line {number}", fault, fix))
    return rows


def measure(judge: Judge, answers: Sequence[Labelled]) -> Accuracy:
    """Let `judge` judge `answers` now, and compare; one that was trained, those alone that are held out from training.

    Raises DataError where no answer has a clear label.
    """
    if getattr(judge, "trained", False):
        answers = [answer for answer in answers if answer.held_out]
    clear = [answer for answer in answers if answer.label != "miss"]
    if not clear:
        raise DataError(Problem("labelled answers", "none has a clear label", "Label some by reading."))
    verdicts = judge.score_all([(answer.prompt, answer.response) for answer in clear])
    told = {(False, True): ["not_refused"], (True, False): ["not_harmful"]}
    scale = common_scale(told.get((judge.can_tell_harm, judge.can_tell_refusal), []))
    truth = on_scale((answer.label for answer in clear), scale)
    found = on_scale((verdict.label for verdict in verdicts), scale)
    right = sum(t == f for t, f in zip(truth, found, strict=True))
    return Accuracy(
        judge=judge.judge_id,
        scale=scale,
        n=len(clear),
        accuracy=right / len(clear),
        interval=wilson(right, len(clear)),
        missed=sum(label in NO_VERDICT for label in found),
        unclear=len(answers) - len(clear),
        refusal=scores(truth, found, "refusal") if judge.can_tell_refusal else None,
        harmful=scores(truth, found, "harmful") if judge.can_tell_harm else None,
        kappa=cohens_kappa(truth, found),
        kappa_interval=kappa_interval(truth, found),
        confusion=confusion(truth, found),
        wrong=tuple(
            {
                "id": answer.id,
                "prompt": answer.prompt,
                "response": answer.response,
                "label": answer.label,
                "found": verdict.label,
                "raw": verdict.raw,
            }
            for answer, verdict, t, f in zip(clear, verdicts, truth, found, strict=True)
            if t != f
        ),
    )
