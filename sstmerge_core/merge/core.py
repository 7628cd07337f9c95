"""Methods on core matrices, one module at a time: exact and low-rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.merge.combination import Adapters
from sstmerge_core.merge.merged import Calibrated, Merged, MergedModule, Pair, Rows, balanced
from sstmerge_core.methods.singular import decomposed
from sstmerge_core.methods.weighting import side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.methods import Method
    from sstmerge_core.space import CoreModule, View


def core(
    adapters: Adapters,
    method: Method,
    parameters: Mapping[str, Any],
    calibrated: Calibrated | None,
    direction: Callable[[str], torch.Tensor] | None = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> Merged:
    """Apply `method` to the `View` of every module; ``changed`` says in which modules it departs from ΔU.

    ``norm_ratio`` is ‖ΔW‖/‖ΔU‖. `direction` gives V (out, in) of a module for methods with ``needs_aligned_part``,
    aligned minus unaligned weights; without it ΔS is taken, and ``proxy_direction`` is 1. `inputs` are those of
    `fisher.inputs.core_inputs`, for methods with ``needs_inputs``.
    """
    from sstmerge_core.space import core_space

    space = calibrated.space if calibrated else core_space(adapters)
    bases: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    cores: dict[str, torch.Tensor] = {}
    statistics: Rows = []
    kept = whole = 0.0
    for name, module in space.items():
        view, left, right = canonical_view(module, name, calibrated if method.needs_fisher else None)
        bases[name] = module.q_out @ left, module.q_in @ right
        if not view.utility.numel():  # a module in which no adapter changes anything has no coordinates
            cores[name] = view.utility
            continue
        if method.needs_aligned_part:
            view, outputs = with_aligned_part(view, bases[name][0], parameters["projection"], direction, name)
            bases[name] = outputs, bases[name][1]
        if inputs is not None:
            turn = right.double()
            view = replace(view, seen=turn.T @ inputs[name].to(turn) @ turn)
        cores[name] = method.function(view, **method.own(parameters))
        norm = float(view.utility.norm())
        changed = float((cores[name] - view.utility).norm()) > 1e-6 * norm
        statistics.append({"module": name, "stat": "changed", "value": float(changed)})
        kept, whole = kept + float(cores[name].square().sum()), whole + norm**2
    share = sum(row["value"] for row in statistics) / max(1, len(space))
    statistics.append({"module": "", "stat": "changed", "value": share})
    if whole:
        statistics.append({"module": "", "stat": "norm_ratio", "value": (kept / whole) ** 0.5})
    if method.needs_aligned_part:
        statistics.append({"module": "", "stat": "proxy_direction", "value": float(direction is None)})
    return from_cores(cores, bases, statistics=statistics, cut=method.cuts_rank)


def with_aligned_part(
    view: View,
    outputs: torch.Tensor,
    projection: str,
    direction: Callable[[str], torch.Tensor] | None,
    name: str,
) -> tuple[View, torch.Tensor]:
    """`view` with CΔU, and the basis of the outputs (out, p) that it is in.

    C of ΔS moves nothing out of the core space; that of another V does, so the basis grows by what it needs.
    """
    import torch

    from sstmerge_core.methods.safe_lora import along

    if direction is None:
        return replace(view, aligned=along(view.safety, view.utility, projection)), outputs
    aligned = along(direction(name).to(outputs), outputs @ view.utility, projection)
    grown = torch.linalg.qr(torch.cat([outputs, aligned], dim=1))[0]
    turn = grown.T @ outputs
    adapters = tuple(turn @ core for core in view.adapters)
    return replace(view, adapters=adapters, utility=turn @ view.utility, aligned=grown.T @ aligned), grown


def canonical_view(
    module: CoreModule, name: str, calibrated: Calibrated | None, experts: str = "mean"
) -> tuple[View, torch.Tensor, torch.Tensor]:
    """One module in its canonical basis, with the diagonal Fishers where there are gradients, and the rotations."""
    from sstmerge_core.space import View, canonical

    left, right = canonical(module)
    turned = tuple(left.T @ core @ right for core in module.cores)
    utility = sum(
        (weight * core for weight, core in zip(side(len(turned) - 1, experts), turned[:-1], strict=True)),
        start=turned[0] * 0,
    )
    if calibrated is None:
        return View(turned, utility), left, right
    harm, benign = (_diagonal(part, name, left, right) for part in (calibrated.harm, calibrated.benign))
    own = [_diagonal(expert, name, left, right) for expert in calibrated.experts] or [benign] * (len(turned) - 1)
    return View(turned, utility, harm, benign, (*own, harm)), left, right


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
    cut: bool = False,
) -> Merged:
    """ΔW = Q_o M Q_iᵀ of every module, with balanced factors; where `cut`, of the rank that M has but for rounding."""
    ranks = {name: _rank(matrix) if cut else min(matrix.shape) for name, matrix in cores.items()}
    modules = {
        name: MergedModule(partial(_delta, bases[name], matrix), partial(_factors, bases[name], matrix, ranks[name]))
        for name, matrix in cores.items()
    }
    return Merged(modules, max(ranks.values(), default=0), spectra or {}, statistics or [])


def _delta(basis: tuple[torch.Tensor, torch.Tensor], matrix: torch.Tensor) -> torch.Tensor:
    return basis[0] @ matrix @ basis[1].T


def _factors(basis: tuple[torch.Tensor, torch.Tensor], matrix: torch.Tensor, rank: int) -> Pair:
    a, b = balanced(basis[0], matrix, basis[1])[0]
    return (a, b) if len(a) == rank else (a[:rank].contiguous(), b[:, :rank].contiguous())


def _rank(matrix: torch.Tensor) -> int:
    return len(decomposed(matrix)[1])
