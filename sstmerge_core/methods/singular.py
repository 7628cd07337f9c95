"""Singular value decompositions of core matrices without the directions that are only rounding. Float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

RANK_TOLERANCE = 1e-5
"""Singular values below this share of the largest are rounding: float32 factors leave about 1e-7"""


def decomposed(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (p, r), σ (r,), V (q, r) with `matrix` (p, q) = U diag(σ) Vᵀ, r its numerical rank, 0 where all is zero."""
    import torch

    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = values > RANK_TOLERANCE * values[:1].clamp(min=1e-30)
    return left[:, kept], values[kept], right[kept].T


def nearest_orthogonal(columns: torch.Tensor) -> torch.Tensor:
    """The partial isometry PQᵀ of the polar decomposition of `columns` (p, n) = P diag(d) Qᵀ, (p, n).

    Where the columns are independent these are the orthonormal columns nearest to them (orthogonal Procrustes). Where
    they are not, no direction is made up for those that depend on others: they share what there is.
    """
    left, _, right = decomposed(columns)
    return left @ right.T
