"""Methods that are a weighted sum of the adapters' ΔW: exact, low-rank, no tensor arithmetic of their own.

Each returns one weight per adapter, utility first; `sstmerge_core.merge` concatenates the scaled factors.
"""

from __future__ import annotations

from typing import Annotated

from sstmerge_core.methods.registry import Real, method

Share = Annotated[
    float, Real(0.0, 1.0, 0.05, "Share of the safety adapter: 0 is the utility adapter alone, 1 the safety adapter.")
]
Strength = Annotated[
    float, Real(0.0, 4.0, 0.1, "Strength with which safety is added: 0 is the utility adapter alone, may exceed 1.")
]


@method("base", title="Base model", kind="reference", axis=None, formula=r"\Delta W = 0")
def base() -> tuple[float, ...]:
    """The base model without any adapter."""
    return ()


@method("adapter", title="Single adapter", kind="reference", axis=None, formula=r"\Delta W = \Delta W_1")
def adapter() -> tuple[float, ...]:
    """One adapter alone, unchanged."""
    return (1.0,)


@method(
    "linear",
    title="Linear",
    kind="combination",
    axis="share",
    formula=r"\Delta W = (1-\alpha)\,\Delta U + \alpha\,\Delta S",
    paper="Wortsman et al. 2022, Model soups",
    url="https://arxiv.org/abs/2203.05482",
)
def linear(*, alpha: Share = 0.5) -> tuple[float, ...]:
    """Weighted average of the two adapters (the reports' “Task Arithmetic”)."""
    return (1.0 - alpha, alpha)


@method(
    "task_arithmetic",
    title="Task Arithmetic",
    kind="combination",
    axis="strength",
    formula=r"\Delta W = \Delta U + \alpha\,\Delta S",
    paper="Ilharco et al. 2023, Editing models with task arithmetic",
    url="https://arxiv.org/abs/2212.04089",
)
def task_arithmetic(*, alpha: Strength = 1.0) -> tuple[float, ...]:
    """The whole utility adapter plus a multiple of the safety adapter."""
    return (1.0, alpha)
