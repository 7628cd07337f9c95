"""How sparse tensors are made one: their weighted sum, or the mean of those that agree with an elected sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 17
"""Elements that are combined at a time: a few arrays of 256 KiB stay in a core's cache"""
FLAVOURS = ("paper", "peft", "mergekit")


def weighted_sum(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ w_i τ_i."""
    total = weights[0] * tensors[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += weight * tensor
    return total


def elect_and_combine(tensors: Sequence[torch.Tensor], weights: Sequence[float], flavour: str) -> torch.Tensor:
    """TIES' “elect” and “disjoint merge” in one of the `FLAVOURS`.

    Goes through the tensors in blocks that fit a processor's cache: the work is bound by memory, not by arithmetic.
    """
    import torch

    merged = torch.empty_like(tensors[0])
    flat, parts = merged.view(-1), [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, len(flat), BLOCK):
        block = [part[start : start + BLOCK] for part in parts]
        if flavour == "mergekit":
            elected = elect_sign([weight * part for weight, part in zip(weights, block, strict=True)])
        else:
            elected = elect_sign(block)
        found = combine_agreeing(block, weights, elected, divide_by="count" if flavour == "peft" else "weight")
        flat[start : start + BLOCK] = found
    return merged


def elect_sign(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """True per element where the sum is not negative, so where the larger total mass is +; zero counts as + (TIES)."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total >= 0


def combine_agreeing(
    tensors: Sequence[torch.Tensor], weights: Sequence[float], positive: torch.Tensor, divide_by: str
) -> torch.Tensor:
    """Weighted mean over the tensors whose element has the elected sign (TIES, “disjoint merge”).

    `divide_by` is ``count`` (number of agreeing tensors, PEFT) or ``weight`` (sum of their weights).
    """
    import torch

    numerator, denominator = torch.zeros_like(tensors[0]), torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        agrees = torch.where(positive, tensor > 0, tensor < 0)
        numerator.add_(tensor * agrees, alpha=weight)
        denominator.add_(agrees, alpha=1.0 if divide_by == "count" else weight)
    if divide_by == "count":
        return numerator.div_(denominator.clamp_(min=1.0))
    # nothing agrees: 0/1
    return numerator.div_(denominator.masked_fill_(denominator.abs() < 1e-8, 1.0))
