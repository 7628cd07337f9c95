"""Element-wise methods: make each ΔW sparse, then make them one. A table of sparsifier × consensus.

TIES, DARE, DELLA, Breadcrumbs and magnitude pruning are the same composition of different parts, as in mergekit's
generalised task arithmetic. A row names a way to make a tensor sparse and a way to make tensors one; the parameters of
a method are those of its two parts. The composed function receives one tensor per adapter (utility experts first,
safety last), their weights, and one `Cut` each, and returns the merged tensor; all float32 and of one shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from sstmerge_core.methods.consensus import FLAVOURS, elect_and_combine, weighted_sum
from sstmerge_core.methods.palette import BROWN, GREEN
from sstmerge_core.methods.registry import Choice, Look, Parameter, Real, method
from sstmerge_core.methods.shared import SCALE, SEED, SHARE, SPACE, TRIM, WEIGHTS
from sstmerge_core.methods.sparsify import Cut, drop_and_rescale, drop_by_rank, keep_between, keep_from, keep_largest
from sstmerge_core.methods.weighting import kept_shares

if TYPE_CHECKING:
    import torch

Density = Annotated[float, Real(0.0, 1.0, 0.05, "Share of each tensor kept.", open_low=True, telling=True)]
MeanDensity = Annotated[float, Real(0.0, 1.0, 0.05, "Mean share of elements kept.", open_low=True, telling=True)]
DropRate = Annotated[
    float,
    Real(0.0, 0.99, 0.05, "Drop rate: each element is dropped with probability p.", telling=True),
]
Beta = Annotated[
    float,
    Real(0.0, 0.99, 0.01, "Share of each tensor dropped because it is the largest by magnitude.", symbol="β"),
]
Spread = Annotated[
    float,
    Real(0.0, 0.5, 0.05, "How much likelier the largest element of a row is kept than the mean one.", symbol="ε"),
]
Flavour = Annotated[
    str,
    Choice(
        FLAVOURS,
        "What the elements that agree with the elected sign are divided by. paper: by the weight of those that agree, "
        "the sign elected on the unweighted sum. peft: by how many agree, so shares that add up to 1 shrink what they "
        "agree on. mergekit: as paper, the sign elected on the weighted sum.",
    ),
]


def trim(tensor: torch.Tensor, cut: Cut, *, density: Density = 0.2) -> torch.Tensor:
    """The largest by magnitude, of this tensor or of all modules together."""
    return keep_largest(tensor, density) if cut.threshold is None else keep_from(tensor, cut.threshold)


def between(tensor: torch.Tensor, cut: Cut, *, density: Density = 0.9, beta: Beta = 0.01) -> torch.Tensor:
    """Neither the largest nor the smallest by magnitude."""
    return keep_between(tensor, density, beta)


def at_random(tensor: torch.Tensor, cut: Cut, *, p: DropRate = 0.5) -> torch.Tensor:
    """A random share, rescaled by 1/(1−p)."""
    return drop_and_rescale(tensor, p, cut.generator)


def by_rank(tensor: torch.Tensor, cut: Cut, *, density: MeanDensity = 0.5, epsilon: Spread = 0.15) -> torch.Tensor:
    """A random share, the larger of a row the likelier, each rescaled by its own probability."""
    return drop_by_rank(tensor, density, epsilon, cut.generator)


def added(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ wᵢτᵢ."""
    return weighted_sum(tensors, weights)


def elected(tensors: Sequence[torch.Tensor], weights: Sequence[float], *, flavour: Flavour = "paper") -> torch.Tensor:
    """The mean of what agrees with a sign elected per element."""
    return elect_and_combine(tensors, weights, flavour)


OF_SPARSIFIER: dict[Callable[..., Any], tuple[Parameter, ...]] = {trim: (TRIM,), at_random: (SEED,), by_rank: (SEED,)}
OF_CONSENSUS: dict[Callable[..., Any], tuple[Parameter, ...]] = {elected: (SCALE,)}
"""Parameters that the driver sees to: what a density is a share of, the random streams, the size of the result"""


class Row(NamedTuple):
    """One method: its two parts, and what is said about it."""

    name: str
    title: str
    sparsifier: Callable[..., torch.Tensor]
    consensus: Callable[..., torch.Tensor]
    summary: str
    formula: str
    paper: str
    url: str
    whole: Mapping[str, Any]
    """Parameters at which nothing is dropped, so that two identical adapters give themselves"""
    oracle: str
    look: Look | None = None


MEAN = (
    r"\Delta W=\lambda\,\frac{\sum_{i\in A}w_i\tau_i}{\sum_{i\in A}w_i},\quad A=\{i:\ \mathrm{sgn}\,\tau_i="
    r"\mathrm{sgn}\textstyle\sum_j\tau_j\}"
)
SUM = r"\Delta W=(1-\alpha)\,\tau_U+\alpha\,\tau_S"
DARE_PAPER = ("Yu et al. 2024, Language models are super Mario", "https://arxiv.org/abs/2311.03099")
TABLE = (
    Row(
        "ties",
        "TIES",
        trim,
        elected,
        "Trim each ΔW by magnitude, elect a sign per element, average what agrees with it.",
        rf"\tau_i=\mathrm{{trim}}(\Delta_i),\quad {MEAN}",
        "Yadav et al. 2023, TIES-Merging",
        "https://arxiv.org/abs/2306.01708",
        {"density": 1.0},
        "numpy (`paper`); PEFT `merge_utils.ties` and `add_weighted_adapter`; mergekit `ties`",
        Look(GREEN, "triangle-up", "dot"),
    ),
    Row(
        "dare_linear",
        "DARE",
        at_random,
        added,
        "Drop elements at random, rescale the rest by 1/(1−p), average.",
        r"\Delta W=(1-\alpha)\,\frac{m_U\odot\Delta U}{1-p}+\alpha\,\frac{m_S\odot\Delta S}{1-p},"
        r"\quad m\sim\mathrm{Bernoulli}(1-p)",
        *DARE_PAPER,
        {"p": 0.0},
        "PEFT `merge_utils.dare_linear` and `add_weighted_adapter` under one mask",
        Look(BROWN, "cross", "dashdot"),
    ),
    Row(
        "dare_ties",
        "DARE + TIES",
        at_random,
        elected,
        "Drop elements at random and rescale as DARE, then elect a sign and average what agrees as TIES.",
        rf"\tau_i=\frac{{m_i\odot\Delta_i}}{{1-p}},\quad {MEAN}",
        *DARE_PAPER,
        {"p": 0.0},
        "numpy (`paper`); PEFT `merge_utils.dare_ties` and `add_weighted_adapter`; mergekit's election; under one mask",
        Look(BROWN, "triangle-down", "longdash"),
    ),
    Row(
        "della",
        "DELLA",
        by_rank,
        elected,
        "Drop elements at random, the smaller within their row the likelier, rescale, then elect a sign as TIES.",
        r"\tau_i=\frac{m_i\odot\Delta_i}{p_i},\quad m\sim\mathrm{Bernoulli}(p_i),\quad p_i=\rho-\epsilon+"
        r"2\epsilon\,\frac{\mathrm{rank}-1}{n-1},\quad \text{then as TIES}",
        "Deep et al. 2024, DELLA-Merging",
        "https://arxiv.org/abs/2406.11617",
        {"density": 1.0, "epsilon": 0.0},
        "mergekit `della_magprune` under one mask, over pᵢ; elected by numpy, by PEFT and by mergekit",
        Look(GREEN, "triangle-left", "longdash"),
    ),
    Row(
        "breadcrumbs",
        "Breadcrumbs",
        between,
        added,
        "Drop the largest and the smallest elements of each ΔW by magnitude, average the rest.",
        rf"{SUM},\quad \tau_i=m_i^{{\gamma,\beta}}\odot\Delta_i,\quad \gamma=1-\mathrm{{density}}-\beta",
        "Davari & Belilovsky 2024, Model Breadcrumbs",
        "https://arxiv.org/abs/2312.06795",
        {"density": 1.0},
        "mergekit `breadcrumbs`",
    ),
    Row(
        "magnitude_prune",
        "Magnitude pruning",
        trim,
        added,
        "Keep the largest elements of each ΔW by magnitude, average them.",
        rf"{SUM},\quad \tau_i=\mathrm{{trim}}(\Delta_i)",
        "PEFT, `magnitude_prune`",
        "https://huggingface.co/docs/peft/developer_guides/model_merging",
        {"density": 1.0},
        "PEFT `merge_utils.magnitude_prune` and `add_weighted_adapter`",
    ),
)


def compose(sparsifier: Callable[..., torch.Tensor], consensus: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """The method of two parts; its signature has the keyword-only parameters of both."""
    of_sparsifier, of_consensus = _own(sparsifier), _own(consensus)

    def merged(
        tensors: Sequence[torch.Tensor], weights: Sequence[float], cuts: Sequence[Cut], **own: Any
    ) -> torch.Tensor:
        sparse = {one.name: own[one.name] for one in of_sparsifier if one.name in own}
        kept = [sparsifier(tensor, cut, **sparse) for tensor, cut in zip(tensors, cuts, strict=True)]
        return consensus(kept, weights, **{one.name: own[one.name] for one in of_consensus if one.name in own})

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("tensors", "weights", "cuts")]
    merged.__signature__ = inspect.Signature([*parameters, *of_sparsifier, *of_consensus])  # type: ignore[attr-defined]
    return merged


def _own(part: Callable[..., Any]) -> list[inspect.Parameter]:
    found = inspect.signature(part).parameters.values()
    return [parameter for parameter in found if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


for _row in TABLE:
    _function = compose(_row.sparsifier, _row.consensus)
    _function.__doc__ = _row.summary
    method(
        _row.name,
        title=_row.title,
        family="Sparse",
        kind="elementwise",
        axis="share",
        formula=_row.formula,
        paper=_row.paper,
        url=_row.url,
        driver=(SHARE, *OF_SPARSIFIER.get(_row.sparsifier, ()), *OF_CONSENSUS.get(_row.consensus, ()), SPACE, WEIGHTS),
        acts=kept_shares,
        oracle=_row.oracle,
        look=_row.look,
        symmetric=True,
        idempotent=_row.whole,
        keeps_utility=_row.consensus is added,  # an election may go against ΔU at any share
    )(_function)
