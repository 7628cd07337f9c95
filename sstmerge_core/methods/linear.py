"""Weighted sums whose weights are the same for every module: exact, low-rank, no tensor arithmetic of their own.

Each receives the number of adapters and gives one weight per adapter (utility experts first, safety last); the driver
concatenates the scaled factors. What people see of them are these weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from sstmerge_core.methods.palette import BLUE, SKY
from sstmerge_core.methods.registry import Look, Real, method
from sstmerge_core.methods.shared import EXPERTS, SHARE, STRENGTH, Weights
from sstmerge_core.methods.weighting import share, side, weighted

Share = Annotated[float, SHARE.schema]
Strength = Annotated[float, STRENGTH.schema]
Tuned = Annotated[
    float,
    Real(
        0.0,
        1.0,
        0.05,
        "Share of the tuned model: 0 is the base model, 1 base + ΔU.",
        symbol="α",
        telling=True,
    ),
]
Experts = Annotated[str, replace(EXPERTS.schema, before=None)]
"""Part of this method's identity since it came: runs that record “mean” have it in their id"""

PEFT_CAT = 'dense float64 and PEFT `add_weighted_adapter("cat")`'


@method("base", title="Base model", family="Reference", kind="reference", axis=None, formula=r"\Delta W = 0", takes=0)
def base(n: int) -> tuple[float, ...]:
    """The base model without any adapter."""
    return ()


@method(
    "adapter",
    title="Single adapter",
    family="Reference",
    kind="reference",
    axis=None,
    formula=r"\Delta W = \Delta W_1",
    takes=1,
)
def adapter(n: int) -> tuple[float, ...]:
    """One adapter alone, unchanged."""
    return (1.0,)


@method(
    "linear",
    title="Linear",
    family="Averaging",
    kind="combination",
    axis="share",
    formula=r"\Delta W = (1-\alpha)\,\Delta U + \alpha\,\Delta S",
    paper="Wortsman et al. 2022, Model soups",
    url="https://arxiv.org/abs/2203.05482",
    oracle=PEFT_CAT,
    look=Look(BLUE, "circle", "solid"),
    symmetric=True,
    idempotent={},
)
def linear(n: int, *, alpha: Share = 0.5, weights: Weights = "") -> tuple[float, ...]:
    """Weighted average of the utility side and the safety adapter (the reports' “Task Arithmetic”)."""
    return weighted(share(n, alpha), weights)


@method(
    "task_arithmetic",
    title="Task Arithmetic",
    family="Averaging",
    kind="combination",
    axis="strength",
    formula=r"\Delta W = \Delta U + \alpha\,\Delta S",
    paper="Ilharco et al. 2023, Editing models with task arithmetic",
    url="https://arxiv.org/abs/2212.04089",
    oracle=PEFT_CAT,
    look=Look(SKY, "square", "dash"),
)
def task_arithmetic(
    n: int, *, alpha: Strength = 1.0, experts: Experts = "mean", weights: Weights = ""
) -> tuple[float, ...]:
    """The whole utility side plus a multiple of the safety adapter."""
    return weighted((*side(n - 1, experts), alpha), weights)


@method(
    "average",
    title="Average",
    family="Averaging",
    kind="combination",
    axis=None,
    formula=r"\Delta W = \tfrac1N\textstyle\sum_i\Delta W_i",
    paper="Wortsman et al. 2022, Model soups",
    url="https://arxiv.org/abs/2203.05482",
    oracle="dense float64",
    look=Look(BLUE, "triangle-down", "dashdot"),
    symmetric=True,
    idempotent={},
)
def average(n: int, *, weights: Weights = "") -> tuple[float, ...]:
    """Plain mean of all adapters, the safety adapter one among them."""
    return weighted((1.0 / n,) * n, weights)


@method(
    "base_interpolation",
    title="Base interpolation",
    family="Averaging",
    kind="combination",
    axis="tuned",
    formula=r"\Delta W = \alpha\,\Delta U",
    paper="Pre- and post-tuning merge (2024)",
    url="https://arxiv.org/abs/2412.19512",
    oracle="dense float64",
    look=Look(BLUE, "star-square", "dot"),
    idempotent={"alpha": 1.0},
)
def base_interpolation(n: int, *, alpha: Tuned = 0.5, weights: Weights = "") -> tuple[float, ...]:
    """Between the base model and the tuned one: the base's own safety comes back; the safety adapter is not used."""
    return weighted((*(alpha * weight for weight in side(n - 1)), 0.0), weights)
