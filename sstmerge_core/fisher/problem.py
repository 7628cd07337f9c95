"""From gradients to the small dual problem: Gram matrices over a few thousand columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sstmerge_core.gevp import DualPatch, DualProblem

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fisher.gradients import Gradients

COLUMNS = 16_384
"""Columns of one partial product. Partial products are summed in float64: that, not memory, is why they are small."""


def dual_problem(
    harm: Gradients,
    benign: Gradients,
    phi: Mapping[str, torch.Tensor],
    rho: float,
    modules: Iterable[str] | None = None,
) -> DualProblem:
    """The dual problem over `modules` (all of `phi` by default). `phi` holds core matrices (p, q) by module.

    Computed where `phi` is, which takes a few thousand columns at a time of gradients that do not fit there; float32
    products summed in float64; the problem itself is on the CPU. Memory: two such runs of columns, of gradients on that
    device none.
    """
    import torch

    names = list(phi if modules is None else modules)
    update = torch.cat([phi[name].reshape(-1) for name in names])
    device = update.device if update.device.type == "cuda" else harm.rows.device  # MPS has no float64
    update = update.to(device)
    n_h, n_b = len(harm), len(benign)
    hh, hb, bb, h_phi, b_phi = (
        torch.zeros(shape, dtype=torch.float64, device=device)
        for shape in ((n_h, n_h), (n_h, n_b), (n_b, n_b), (n_h,), (n_b,))
    )
    start = 0
    for columns in _runs([harm.blocks[name] for name in names]):
        h, b = harm.columns(columns).to(device), benign.columns(columns).to(device)
        part = update[start : start + h.shape[1]]
        hh += h @ h.T
        hb += h @ b.T
        bb += b @ b.T
        h_phi += h @ part
        b_phi += b @ part
        start += h.shape[1]
    s_h, s_b = harm.weights.sqrt(), benign.weights.sqrt()
    return DualProblem(
        hh=hh.cpu() * s_h[:, None] * s_h,
        hb=hb.cpu() * s_h[:, None] * s_b,
        bb=bb.cpu() * s_b[:, None] * s_b,
        h_phi=h_phi.cpu() * s_h,
        b_phi=b_phi.cpu() * s_b,
        rho=rho,
        dimension=len(update),
    )


def gram(gradients: Gradients, modules: Iterable[str]) -> torch.Tensor:
    """G Gᵀ over `modules`, (n, n) float64 on the CPU, of rows √w_i g_i; float32 products summed in float64."""
    import torch

    total = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients.rows.device)
    for columns in _runs([gradients.blocks[name] for name in modules]):
        part = gradients.columns(columns)
        total += part @ part.T
    scale = gradients.weights.sqrt()
    return total.cpu() * scale[:, None] * scale


def scaled_rows(gradients: Gradients, name: str) -> torch.Tensor:
    """Rows √w_i g_i of one module, (n, p·q) where the gradients are, so that F = GᵀG."""
    rows = gradients.columns(gradients.blocks[name])
    return rows * gradients.weights.sqrt().to(rows)[:, None]


def project(gradients: Gradients, name: str, core: torch.Tensor) -> torch.Tensor:
    """G x of one module for a core matrix x (p, q): √w_i g_iᵀx, (n,) float64 on the CPU."""
    rows = gradients.columns(gradients.blocks[name])
    return (rows @ core.reshape(-1).to(rows)).double().cpu() * gradients.weights.sqrt()


def primal(patch: DualPatch, harm: Gradients, benign: Gradients, phi: torch.Tensor, name: str) -> torch.Tensor:
    """δ of one module as a core matrix (p, q), on the device of `phi`."""
    update = _combination(harm, patch.harm, name) + _combination(benign, patch.benign, name).to(harm.rows.device)
    return patch.phi * phi + update.view_as(phi).to(phi)


def _combination(gradients: Gradients, coefficients: torch.Tensor, name: str) -> torch.Tensor:
    """Gᵀ coefficients of one module, (p·q,)."""
    rows = gradients.columns(gradients.blocks[name])
    return (coefficients.cpu() * gradients.weights.sqrt()).to(rows) @ rows


def _runs(blocks: Sequence[slice]) -> Iterator[slice]:
    """The columns of `blocks` in order, neighbours joined, in runs of at most `COLUMNS`."""
    joined: list[slice] = []
    for block in blocks:
        if joined and joined[-1].stop == block.start:
            joined[-1] = slice(joined[-1].start, block.stop)
        else:
            joined.append(block)
    for run in joined:
        for start in range(run.start, run.stop, COLUMNS):
            yield slice(start, min(start + COLUMNS, run.stop))
