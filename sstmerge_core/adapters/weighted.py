"""The weighted sum of adapters as one adapter of their concatenated ranks, streamed from their files to the new one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sstmerge_core.adapters.adapted import AdaptedModule, Tensors
from sstmerge_core.adapters.places import WEIGHTS
from sstmerge_core.adapters.read import Adapter
from sstmerge_core.adapters.write import Lazy

if TYPE_CHECKING:
    import torch


def weighted_sum(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Lazy]:
    """Factors of Σ wᵢ ΔWᵢ by module, to be made when they are written: the adapters' scaled factors side by side.

    The same bits as `sstmerge_core.merge` gives for its weighted sums: all modules get the rank Σ rᵢ, with zeros where
    an adapter leaves a module alone, and an adapter of weight 0 costs no rank. Memory: the factors of one module.
    """
    from safetensors import safe_open

    used = [(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True) if weight != 0.0]
    rank = max(1, sum(adapter.rank for adapter, _ in used))
    files = [Tensors(safe_open(adapter.path / WEIGHTS, framework="pt")) for adapter, _ in used]
    found = {}
    for name in sorted(set().union(*(adapter.modules for adapter in adapters))):
        shape = next(adapter.modules[name] for adapter in adapters if name in adapter.modules)
        parts = [
            (file, adapter.modules[name], weight * adapter.modules[name].scaling)
            for file, (adapter, weight) in zip(files, used, strict=True)
            if name in adapter.modules
        ]
        make = partial(_side_by_side, parts, rank, shape)
        found[name] = Lazy(rank, shape.in_features, shape.out_features, make)
    return found


def _side_by_side(
    parts: Sequence[tuple[Tensors, AdaptedModule, float]], rank: int, shape: AdaptedModule
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    pairs = [module.factors(file) for file, module, _ in parts]
    lefts = [left for left, _ in pairs]
    formats = {left.dtype for left in lefts}
    a = torch.empty(rank, shape.in_features, dtype=formats.pop() if len(formats) == 1 else torch.float32)
    b, factors = torch.empty(shape.out_features, rank), torch.zeros(rank)
    row = 0
    for (left, right), (_, module, factor) in zip(pairs, parts, strict=True):
        stop = row + module.rank
        a[row:stop] = left
        b[:, row:stop] = right
        factors[row:stop] = factor
        row = stop
    a[row:] = 0.0
    b[:, row:] = 0.0
    return a, b.mul_(factors)  # in one go: columns by columns are strided
