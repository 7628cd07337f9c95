"""Weighted sums: the scaled factors side by side, exact and without a decomposition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.merge.merged import Merged, MergedModule, Pair, Rows, ranks

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.methods import Method

Adapters = Sequence[Mapping[str, "Factors"]]


def combination(adapters: Adapters, method: Method, parameters: Mapping[str, Any]) -> Merged:
    """The same weights for every module."""
    weights = method.function(len(adapters), **parameters)
    return weighted_sum(adapters, dict.fromkeys(sorted(set().union(*adapters)), weights))


def angular(adapters: Adapters, method: Method, parameters: Mapping[str, Any]) -> Merged:
    """Weights of each module from the inner products of its ΔW; they are reported as statistics."""
    from sstmerge_core.space import inner_products

    weights = {}
    statistics: Rows = []
    for name in sorted(set().union(*adapters)):
        inner = inner_products([adapter.get(name) for adapter in adapters])
        weights[name] = method.function(inner, **parameters)
        values = {"weight_utility": weights[name][0], "weight_safety": weights[name][-1]}
        statistics += [{"module": name, "stat": stat, "value": value} for stat, value in values.items()]
    return weighted_sum(adapters, weights, statistics)


def weighted_sum(adapters: Adapters, weights: Mapping[str, Sequence[float]], statistics: Rows | None = None) -> Merged:
    """Σ wᵢ ΔWᵢ with the weights of each module; an adapter that has no weight anywhere costs no rank."""
    used = [any(own[index] != 0.0 for own in weights.values()) for index in range(len(adapters))]
    modules = {}
    for name, own in weights.items():
        parts = [(adapter.get(name), w) for adapter, w, use in zip(adapters, own, used, strict=False) if use]
        like = next(adapter[name] for adapter in adapters if name in adapter)
        modules[name] = MergedModule.product(partial(_side_by_side, parts, like))
    rank = sum(ranks(adapter) for adapter, use in zip(adapters, used, strict=True) if use)
    return Merged(modules, max(rank, 1) if modules else 0, statistics=statistics or [])


def _side_by_side(parts: Sequence[tuple[Factors | None, float]], like: Factors) -> Pair:
    import torch

    present = [(factor, weight) for factor, weight in parts if factor is not None]
    if not present:
        return like.a.new_zeros(0, like.a.shape[1]), like.b.new_zeros(like.b.shape[0], 0)
    a = torch.cat([factor.a for factor, _ in present], dim=0)
    b = torch.cat([weight * factor.scaling * factor.b for factor, weight in present], dim=1)
    return a, b


def on_base(adapters: Adapters, method: Method, parameters: Mapping[str, Any], base: Callable[[str], Any]) -> Merged:
    """Methods on base weights: ΔW = c₀W₀ + c₁ΔU per module, dense. `base` gives W₀ (out, in) float32 of a module.

    ``linear_rule`` says in which modules the two weights were almost parallel and so interpolated linearly.
    """
    from sstmerge_core.methods.weighting import side

    experts = len(adapters) - 1
    update = weighted_sum(adapters, dict.fromkeys(sorted(set().union(*adapters)), (*side(experts), 0.0)))
    statistics: Rows = []
    coefficients = {}
    for name, module in update.modules.items():
        delta = module.delta()
        on_base, on_update, linear = method.function(base(name).to(delta), delta, **parameters)
        coefficients[name] = (on_base, on_update)
        statistics.append({"module": name, "stat": "linear_rule", "value": float(linear)})
    share = sum(row["value"] for row in statistics) / max(1, len(statistics))
    statistics.append({"module": "", "stat": "linear_rule", "value": share})

    def combined(name: str) -> torch.Tensor:
        on_base, on_update = coefficients[name]
        delta = update.modules[name].delta()
        return on_base * base(name).to(delta) + on_update * delta

    modules = {name: MergedModule(partial(combined, name), None) for name in update.modules}
    return Merged(modules, update.rank, statistics=statistics)
