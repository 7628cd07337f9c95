"""From gradients to the small dual problem: Gram matrices, one module at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sstmerge_core.gevp import DualPatch, DualProblem

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fisher.gradients import Gradients


def dual_problem(
    harm: Gradients,
    benign: Gradients,
    phi: Mapping[str, torch.Tensor],
    rho: float,
    modules: Iterable[str] | None = None,
) -> DualProblem:
    """The dual problem over `modules` (all by default). `phi` holds core matrices (p, q) by module.

    Grams are formed in float32 per module and summed in float64.
    """
    import torch

    n_h, n_b = len(harm), len(benign)
    hh = torch.zeros(n_h, n_h, dtype=torch.float64)
    hb = torch.zeros(n_h, n_b, dtype=torch.float64)
    bb = torch.zeros(n_b, n_b, dtype=torch.float64)
    h_phi = torch.zeros(n_h, dtype=torch.float64)
    b_phi = torch.zeros(n_b, dtype=torch.float64)
    for name in phi if modules is None else modules:
        h, b = scaled_rows(harm, name), scaled_rows(benign, name)
        update = phi[name].reshape(-1)
        hh += (h @ h.T).double()
        hb += (h @ b.T).double()
        bb += (b @ b.T).double()
        h_phi += (h @ update).double()
        b_phi += (b @ update).double()
    return DualProblem(hh, hb, bb, h_phi, b_phi, rho)


def scaled_rows(gradients: Gradients, name: str) -> torch.Tensor:
    """Rows g_i/√n of one module, (n, p·q), so that F = GᵀG."""
    return gradients.modules[name].flatten(1) / len(gradients) ** 0.5


def primal(patch: DualPatch, harm: Gradients, benign: Gradients, phi: torch.Tensor, name: str) -> torch.Tensor:
    """δ of one module as a core matrix (p, q)."""
    update = patch.harm.float() @ scaled_rows(harm, name) + patch.benign.float() @ scaled_rows(benign, name)
    return patch.phi * phi + update.view_as(phi)
