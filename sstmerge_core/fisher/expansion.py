"""The expansion point: at which weights the gradients are taken, base + Σ_i w_i ΔW_i. Source: ALGORITHMS §3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sstmerge_core.methods.weighting import side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors

Pair = tuple["torch.Tensor", "torch.Tensor"]
"""LoRA factors A (r, in) and B (out, r)"""


def point(expansion: str, part: str) -> str:
    """``utility``, ``safety``, ``midpoint`` or ``base``: the point of one part of the samples.

    `expansion` is that of a `Calibration`, `part` one of its parts. ``own`` takes every part where its own adapter was
    trained: harmful samples at base + ΔS, benign ones at base + ΔU; where each utility adapter has samples of its own
    the point is ``utility 1``, ``utility 2`` …, base + ΔU_i.
    """
    if expansion == "own":
        return "safety" if part == "harm" else "utility"
    return expansion


def point_of_each(parts: Sequence[str], part: str) -> str:
    """The same for one part where each utility adapter has samples of its own; general prompts stay at base + ΔU."""
    own = [name for name in parts if name.startswith("benign")]
    return f"utility {own.index(part) + 1}" if part in own else point("own", part)


def weights(point: str, adapters: int, experts: str = "mean") -> tuple[float, ...]:
    """w_i of each adapter, utility experts first and safety last.

    ΔU of several utility experts is what `experts` says: the mean of their ΔW, or their sum.
    """
    if point.startswith("utility "):
        alone = int(point.removeprefix("utility ")) - 1
        return tuple(float(index == alone) for index in range(adapters))
    utility, safety = {"utility": (1.0, 0.0), "safety": (0.0, 1.0), "midpoint": (0.5, 0.5), "base": (0.0, 0.0)}[point]
    return (*(utility * weight for weight in side(adapters - 1, experts)), safety)


def deltas(
    adapters: Sequence[Mapping[str, Factors]], weights: Sequence[float]
) -> dict[str, Callable[[], torch.Tensor]]:
    """Σ_i w_i ΔW_i by module, (out, in) float32, each computed when called: as `ResidentModel.set_delta` takes them."""
    return {name: partial(_delta, parts) for name, parts in _parts(adapters, weights).items()}


def low_rank(adapters: Sequence[Mapping[str, Factors]], weights: Sequence[float]) -> dict[str, Callable[[], Pair]]:
    """The same as factors A (r, in) and B (out, r), side by side: as `ResidentModel.set_delta` takes them beside."""
    return {name: partial(_side_by_side, parts) for name, parts in _parts(adapters, weights).items()}


def _parts(
    adapters: Sequence[Mapping[str, Factors]], weights: Sequence[float]
) -> dict[str, list[tuple[Factors, float]]]:
    moving = [(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True) if weight]
    names = sorted({name for adapter, _ in moving for name in adapter})
    return {name: [(adapter[name], weight) for adapter, weight in moving if name in adapter] for name in names}


def _side_by_side(parts: Sequence[tuple[Factors, float]]) -> Pair:
    import torch

    a = torch.cat([factors.a for factors, _ in parts])
    b = torch.cat([weight * factors.scaling * factors.b for factors, weight in parts], dim=1)
    return a, b


def _delta(parts: Sequence[tuple[Factors, float]]) -> torch.Tensor:
    a, b = _side_by_side(parts)
    return b @ a
