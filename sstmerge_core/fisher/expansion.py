"""The expansion point: at which weights the gradients are taken, base + Σ_i w_i ΔW_i. Source: ALGORITHMS §3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sstmerge_core.methods.weighting import side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors


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
    moving = [(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True) if weight]
    names = sorted({name for adapter, _ in moving for name in adapter})
    return {
        name: partial(_delta, [(adapter[name], weight) for adapter, weight in moving if name in adapter])
        for name in names
    }


def _delta(parts: Sequence[tuple[Factors, float]]) -> torch.Tensor:
    import torch

    a = torch.cat([factors.a for factors, _ in parts])
    b = torch.cat([weight * factors.scaling * factors.b for factors, weight in parts], dim=1)
    return b @ a
