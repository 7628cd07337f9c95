"""Model Stock: the mean of several trainings of one task, drawn towards the base the less they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sstmerge_core.methods.palette import SKY
from sstmerge_core.methods.registry import Look, method

if TYPE_CHECKING:
    import torch


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    which = "both" if experts == 1 else f"all {experts + 1}"
    return f"the mean of {which} adapters, scaled per module by how well they agree"


@method(
    "model_stock",
    title="Model Stock",
    family="Averaging",
    kind="angular",
    axis=None,
    formula=r"\Delta W=\frac{t}{N}\sum_i\Delta W_i,\quad t=\frac{N\cos\theta}{1+(N-1)\cos\theta}\in[0,1]",
    paper="Jang et al. 2024, Model Stock",
    url="https://arxiv.org/abs/2403.19522",
    acts=_acts,
    oracle="mergekit `model_stock`",
    look=Look(SKY, "hexagon2", "dot"),
    symmetric=True,
    idempotent={},
)
def model_stock(inner: torch.Tensor) -> tuple[float, ...]:
    """Mean of all adapters, drawn towards the base the less they agree. Meant for several seeds of one task."""
    n = len(inner)
    norms = inner.diagonal().sqrt()
    cosines = inner / (norms[:, None] * norms).clamp(min=1e-12)
    cosine = float(cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1))
    below = 1 + (n - 1) * cosine
    t = min(1.0, max(0.0, n * cosine / below)) if below > 1e-6 else 0.0
    return (t / n,) * n
