"""Methods on core matrices, one module at a time: exact and low-rank."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.merge.combination import Adapters
from sstmerge_core.merge.merged import Calibrated, Merged, MergedModule, Pair, Rows, balanced

if TYPE_CHECKING:
    import torch

    from sstmerge_core.methods import Method
    from sstmerge_core.space import CoreModule, View


def core(adapters: Adapters, method: Method, parameters: Mapping[str, Any], calibrated: Calibrated | None) -> Merged:
    """Apply `method` to the `View` of every module; ``changed`` says in which modules it departs from ΔU."""
    from sstmerge_core.space import core_space

    space = calibrated.space if calibrated else core_space(adapters)
    bases: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    cores: dict[str, torch.Tensor] = {}
    statistics: Rows = []
    for name, module in space.items():
        view, left, right = canonical_view(module, name, calibrated if method.needs_fisher else None)
        # a module in which no adapter changes anything has no coordinates
        cores[name] = method.function(view, **method.own(parameters)) if view.utility.numel() else view.utility
        bases[name] = module.q_out @ left, module.q_in @ right
        changed = float((cores[name] - view.utility).norm()) > 1e-7 * float(view.utility.norm())
        statistics.append({"module": name, "stat": "changed", "value": float(changed)})
    share = sum(row["value"] for row in statistics) / max(1, len(statistics))
    statistics.append({"module": "", "stat": "changed", "value": share})
    return from_cores(cores, bases, statistics=statistics)


def canonical_view(
    module: CoreModule, name: str, calibrated: Calibrated | None, experts: str = "mean"
) -> tuple[View, torch.Tensor, torch.Tensor]:
    """One module in its canonical basis, with both diagonal Fishers where there are gradients, and the rotations."""
    from sstmerge_core.methods.combine import side
    from sstmerge_core.space import View, canonical

    left, right = canonical(module)
    turned = tuple(left.T @ core @ right for core in module.cores)
    utility = sum(
        (weight * core for weight, core in zip(side(len(turned) - 1, experts), turned[:-1], strict=True)),
        start=turned[0] * 0,
    )
    if calibrated is None:
        return View(turned, utility), left, right
    harm, benign = (_diagonal(side, name, left, right) for side in (calibrated.harm, calibrated.benign))
    return View(turned, utility, harm, benign), left, right


def _diagonal(gradients: Any, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Diagonal of F = Σ w g gᵀ of one module in a rotated basis, (p, q)."""
    rows = gradients.modules[name]
    turned = left.T.to(rows) @ rows @ right.to(rows)
    weights = gradients.weights.to(rows)[:, None, None]
    return (weights * turned.square()).sum(0).to(left)


def from_cores(
    cores: Mapping[str, torch.Tensor],
    bases: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    *,
    spectra: dict[str, list[float]] | None = None,
    statistics: Rows | None = None,
) -> Merged:
    """ΔW = Q_o M Q_iᵀ of every module, with balanced factors."""
    rank = max((min(matrix.shape) for matrix in cores.values()), default=0)
    modules = {
        name: MergedModule(partial(_delta, bases[name], matrix), partial(_factors, bases[name], matrix))
        for name, matrix in cores.items()
    }
    return Merged(modules, rank, spectra or {}, statistics or [])


def _delta(basis: tuple[torch.Tensor, torch.Tensor], matrix: torch.Tensor) -> torch.Tensor:
    return basis[0] @ matrix @ basis[1].T


def _factors(basis: tuple[torch.Tensor, torch.Tensor], matrix: torch.Tensor) -> Pair:
    return balanced(basis[0], matrix, basis[1])[0]
