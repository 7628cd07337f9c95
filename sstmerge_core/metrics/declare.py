"""What a metric's file declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["safety", "over_refusal", "utility", "quality", "cost"]
ROLES: tuple[Role, ...] = ("safety", "utility", "over_refusal", "quality", "cost")
"""In the order in which figures are read"""
SuiteRole = Literal["harmful", "benign", "utility"]
Score = Callable[[str, str], float]
"""(reference, response) → what the metric is the mean of"""


@dataclass(frozen=True)
class Encoder:
    """The model that a metric compares texts by, unless another one is named."""

    model: str
    """On the Hugging Face hub"""
    layer: int | None = None
    """Whose hidden states are taken, counted from 1; None: the last"""


@dataclass(frozen=True)
class Metric:
    """One metric: everything that tables, views, plots, comparisons, tooltips, docs and checks say of it.

    Where its figure comes from, one of seven: the share of verdicts that `counts`; the mean of `score` over the
    answers, or of what an `encoder` says of them; `forced`, of given texts and without any answer
    (`evaluate.forced`); `relative` to a run measured beside it (`evaluate.metric_rows.relative_metrics`); `of_run`,
    what the run took; or none, for figures that only reports give.
    """

    name: str
    title: str
    role: Role
    higher_is_better: bool
    help: str
    """A sentence: what it is"""
    formula: str = ""
    """LaTeX"""
    suites: tuple[SuiteRole, ...] = ()
    """Roles of the suites that it is measured on; a utility metric only where the suite declares it"""
    counts: tuple[str, ...] = ()
    """The labels whose share it is (`labels.LABELS`)"""
    of_all: bool = False
    """Whether the run's figure is that over the answers of all its suites"""
    of_attacked: bool = False
    """Whether it is told of the answers under all attacks of a run together, and only where there are any"""
    where_any: bool = False
    """Whether it is told only where any of `counts` occurs"""
    of_unjudged: bool = False
    """Whether answers without a verdict are in its denominator"""
    asks: Literal["refusal", "harm", ""] = ""
    """What a judge must be able to tell, or there is no figure"""
    score: Score | None = None
    encoder: Encoder | None = None
    """Of a metric that a model computes: as a suite's own with each answer, or of stored ones (`evaluate.encoders`)"""
    whole: bool = False
    """Whether `score` is given the response with what the model reasoned first; otherwise the answer alone"""
    without_reference: bool = False
    """Whether `score` needs no reference: it is then given the empty text"""
    forced: Literal["refusal", "reference", "divergence", ""] = ""
    """What it is the mean of where nothing is generated, nats per response token: the loss of a refusal, that of the
    reference, or KL(U ‖ merge) along the reference"""
    computed_by: str = "reference"
    """What stands in a row's judge column where no judge is asked"""
    interval: Literal["wilson", "bootstrap", ""] = ""
    """How its 95 % interval over prompts is made"""
    interval_words: str = ""
    """What the docs say of the interval beyond its name"""
    relative: bool = False
    """Measured against a reference of each run's own, so not comparable between pairs"""
    of_run: str = ""
    """SQL of a row `r` of the table of runs, for the leaderboard: no judge, no suite and no interval belongs to it"""
    bounded: bool = True
    """Whether it lies in 0–1"""
    unit: str = ""
    headline: bool = True
    """Whether the leaderboard has a column for it"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Status → why there is no value, in words"""

    @property
    def words(self) -> str:
        """The title within a sentence: ``over-refusal``, ``ROUGE-L``."""
        return self.title if self.title[:2].isupper() else self.title[:1].lower() + self.title[1:]

    @property
    def of_answers(self) -> bool:
        """Whether each answer has a score of its own, of which it is the mean."""
        return self.score is not None or self.encoder is not None

    @property
    def column(self) -> str:
        """Where the leaderboard has it: a run's utility is one column, whatever measures it."""
        return "utility" if self.role == "utility" else self.name

    @property
    def judged(self) -> bool:
        """Whether it rests on a judge's verdicts."""
        return bool(self.counts)

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"


def of_given_texts(
    name: str, title: str, role: Role, forced: Literal["refusal", "reference", "divergence"], **about: Any
) -> Metric:
    """A metric of given texts (`evaluate.forced`): a mean over prompts of means over the text's tokens, in nats.

    `about` are further fields of `Metric`. No headline: it foresees what answers will show, and does not tell it.
    """
    return Metric(
        name,
        title,
        role,
        forced=forced,
        computed_by="teacher_forcing",
        interval="bootstrap",
        bounded=False,
        unit="nats per token",
        headline=False,
        **about,
    )
