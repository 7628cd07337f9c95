"""What a method of kind ``learned`` says of one module: which numbers are fitted, and what ΔW they give. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Coefficients:
    """The fitted numbers of one module, each of a size of about 1, so that one step size and one ridge suit all."""

    start: torch.Tensor
    """(c,) float64, where the fit begins and what the ridge pulls to"""
    core: Callable[[torch.Tensor], torch.Tensor]
    """(c,) float64 → the merged core matrix (p, q) in the coordinates of the view; linear, and torch can go back"""
    told: Mapping[str, slice] = field(default_factory=dict)
    """Statistic → the coefficients whose mean it is"""
