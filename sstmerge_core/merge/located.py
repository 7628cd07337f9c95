"""Methods on the exact ΔW and the weights elected for each adapter, one module at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.merge.combination import Adapters
from sstmerge_core.merge.elementwise import dense_deltas
from sstmerge_core.merge.merged import Merged, MergedModule, Rows, ranks

if TYPE_CHECKING:
    import torch

    from sstmerge_core.methods import Method

Elected = Sequence[Mapping[str, "torch.Tensor"]]
"""Of each adapter the weights that matter to its task, bool (out, in) by module; see `fisher.importance.elect`"""


def located(adapters: Adapters, method: Method, parameters: Mapping[str, Any], elected: Elected) -> Merged:
    """Apply `method` per module: dense, the adapter on disk its best approximation of rank Σ r_i.

    Statistics: the shares of weights elected for each side and for both, per module and pooled.
    """
    weights = [1.0] * (len(adapters) - 1) + [parameters["alpha"]]
    names = sorted(set().union(*adapters))
    modules = {name: MergedModule(partial(_merge, adapters, method, elected, weights, name), None) for name in names}
    return Merged(modules, sum(ranks(adapter) for adapter in adapters), statistics=_shares(elected, names))


def _merge(adapters: Adapters, method: Method, elected: Elected, weights: Sequence[float], name: str) -> torch.Tensor:
    tensors = dense_deltas(adapters, name)
    masks = [_mask(own, name, tensors[0]) for own in elected]
    return method.function(tensors, masks, weights)


def _mask(elected: Mapping[str, torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
    import torch

    return elected[name].to(like.device) if name in elected else torch.zeros_like(like, dtype=torch.bool)


def _shares(elected: Elected, names: Sequence[str]) -> Rows:
    """``elected_utility``, ``elected_safety``, ``conflict``: share of the weights elected for any expert, for safety,
    and for more than one of them."""
    rows: Rows = []
    totals = [0, 0, 0, 0]
    for name in names:
        *experts, safety = (own.get(name) for own in elected)
        known = [mask for mask in (*experts, safety) if mask is not None]
        if not known:
            continue
        nothing = known[0].int() * 0
        claims = sum((mask.int() for mask in known), nothing)
        utility = sum((mask.int() for mask in experts if mask is not None), nothing)
        counts = [claims.numel(), int((utility > 0).sum()), 0 if safety is None else int(safety.sum())]
        counts.append(int((claims > 1).sum()))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        rows += _stats(name, counts)
    return rows + _stats("", totals) if totals[0] else rows


def _stats(module: str, counts: Sequence[int]) -> Rows:
    of, *found = counts
    named = zip(("elected_utility", "elected_safety", "conflict"), found, strict=True)
    return [{"module": module, "stat": stat, "value": count / of} for stat, count in named]
