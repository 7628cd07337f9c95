"""What every judge is: answers in, verdicts out. Labels and what counts as what: `metrics.labels`. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sstmerge_core.metrics.reasoning import parted

Pair = tuple[str, str]
"""A prompt and the answer to it"""


@dataclass(frozen=True)
class Verdict:
    label: str
    """One of `labels.LABELS`."""
    score: float
    """The judge's own figure for refusal, 0 to 1; for harm where it cannot tell refusals."""
    raw: str
    """What the verdict rests on: the matched words, or the judge's own output."""
    judge_id: str


class Rater(Protocol):
    """Whose labels they are: as much as figures made of labels need to know of a judge, or of a reader."""

    @property
    def judge_id(self) -> str:
        """What its verdicts are stored under; of a model with its name and revision."""

    @property
    def can_tell_harm(self) -> bool:
        """Whether it tells a harmful answer from a harmless one that is no refusal; otherwise there is no ASR."""

    @property
    def can_tell_refusal(self) -> bool:
        """Whether it tells a refusal from another harmless answer; otherwise there is no resistance."""


class Judge(Rater, Protocol):
    def score(self, prompt: str, response: str) -> Verdict: ...

    def score_all(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """As `score`, of many at once and in their order."""


class OneByOne(ABC):
    """`score_all` for judges that gain nothing by looking at many answers at once."""

    can_tell_refusal = True

    @abstractmethod
    def score(self, prompt: str, response: str) -> Verdict: ...

    def score_all(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [self.score(prompt, response) for prompt, response in pairs]


def judge_samples(judge: Judge, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the `verdicts` event (prompt_id, label, score, raw) for the rows of a `samples` event.

    A judge is shown the answer without the reasoning before it; reasoning that never ended, as it is.
    """
    pairs = []
    for sample in samples:
        response = sample["response"]
        answer = parted(response)[1] if "</" in response else None
        pairs.append((sample["prompt"], response if answer is None else answer))
    verdicts = judge.score_all(pairs)
    return [
        {"prompt_id": sample["prompt_id"], "label": verdict.label, "score": verdict.score, "raw": verdict.raw}
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]
