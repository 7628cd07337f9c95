"""What methods of kind ``edited`` see of samples, and what they return: low-rank changes of whole weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

KINDS = ("harm", "near", "benign")
"""Harmful prompts, near misses, utility prompts"""


@dataclass(frozen=True)
class Seen:
    """Of one pass over the prompts at base + ΔW, as it is so far."""

    outputs: Mapping[str, Mapping[str, torch.Tensor]]
    """module → kind (`KINDS`) → (n, out) float64: a prompt's mean output or that at its last token, see `Method`"""
    answered: Mapping[str, torch.Tensor] | None = None
    """kind → (n,) bool, whether the model answers; for methods with ``needs_answers``"""
    residual: Mapping[str, torch.Tensor] | None = None
    """kind → (n, width) float64, the residual stream after the last layer at the last token; for the same"""


@dataclass(frozen=True)
class Edit:
    """W ← (I + L Rᵀ) W of one module, W the whole weight with ΔW in it: LRᵀW has at most r directions, exactly."""

    left: torch.Tensor
    """L, (out, r) float64"""
    right: torch.Tensor
    """R, (out, r) float64"""

    def after(self, first: Edit) -> Edit:
        """The edit that does `first`, then this one: (I + L₂R₂ᵀ)(I + L₁R₁ᵀ) − I = L₁R₁ᵀ + L₂(R₂ + R₁L₁ᵀR₂)ᵀ."""
        import torch

        return Edit(
            torch.cat([first.left, self.left], dim=1),
            torch.cat([first.right, self.right + first.right @ (first.left.T @ self.right)], dim=1),
        )


def layer_of(module: str) -> int | None:
    """The layer in a module's name, ``model.layers.12.mlp.down_proj``: the first part that is a number; else None."""
    return next((int(part) for part in module.split(".") if part.isdecimal()), None)
