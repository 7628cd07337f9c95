"""RESTA: a harm adapter, trained to comply with harmful requests, is subtracted."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from sstmerge_core.methods.linear import PEFT_CAT, Experts
from sstmerge_core.methods.registry import method
from sstmerge_core.methods.shared import STRENGTH, Weights
from sstmerge_core.methods.weighting import side, weighted


@method(
    "resta",
    title="RESTA",
    family="Safety-aware",
    kind="combination",
    axis="strength",
    formula=r"\Delta W=\Delta U-\alpha\,\Delta H",
    paper="Bhardwaj et al. 2024, Language models are Homer Simpson!",
    url="https://arxiv.org/abs/2402.11746",
    takes_harm=True,
    oracle=PEFT_CAT,
)
def resta(
    n: int,
    *,
    alpha: Annotated[
        float,
        replace(
            STRENGTH.schema,
            help="Strength of the safety vector −ΔH that is added (γ in the paper): 0 is the utility side alone.",
        ),
    ] = 1.0,
    experts: Experts = "mean",
    weights: Weights = "",
) -> tuple[float, ...]:
    """The whole utility side minus a multiple of a harm adapter, which stands in the place of the safety adapter.

    The safety vector is the aligned minus the unaligned model: −ΔH where ΔH is what made the base unaligned. Harm
    Direction Removal, a part of Safety Arithmetic (arXiv 2406.11801), subtracts the same, trimmed to its largest
    elements first.
    """
    return weighted((*side(n - 1, experts), -alpha), weights)
