"""Element-wise methods in one of three spaces: on the exact ΔW, in core coordinates, or on the factors apart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.merge.combination import Adapters
from sstmerge_core.merge.merged import Merged, MergedModule, Pair, balanced, ranks
from sstmerge_core.methods.combine import share

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.methods import Method
    from sstmerge_core.space import CoreSpace


def elementwise(adapters: Adapters, method: Method, parameters: Mapping[str, Any], identities: Sequence[str]) -> Merged:
    """Apply `method` per module. `identities` name the adapters for the random masks.

    In ``delta`` the result is dense and the adapter on disk its best approximation of rank Σ r_i; in ``core`` and
    ``factors`` it is low-rank and exact. Raises RecipeError for factors of unequal rank.
    """
    names = sorted(set().union(*adapters))
    weights = share(len(adapters), parameters["alpha"])
    seed = parameters.get("seed", 0)
    apply = partial(_apply, method, method.own(parameters), identities=identities, seed=seed)
    space = parameters["space"]
    rank = sum(ranks(adapter) for adapter in adapters)
    if space == "delta":
        dense = {name: MergedModule(partial(_dense, adapters, name, weights, apply), None) for name in names}
        return Merged(dense, rank)
    if space == "core":
        from sstmerge_core.space import core_space

        cores = core_space(adapters)
        modules = {name: MergedModule.product(partial(_core, cores, name, weights, apply)) for name in names}
        return Merged(modules, max(min(*cores[name].cores[0].shape) for name in names))
    _refuse_unequal_ranks(adapters, names)
    modules = {name: MergedModule.product(partial(_factors, adapters, name, weights, apply)) for name in names}
    return Merged(modules, max(ranks(adapter) for adapter in adapters))


def _apply(
    method: Method,
    parameters: Mapping[str, Any],
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    name: str,
    *,
    identities: Sequence[str],
    seed: int,
) -> torch.Tensor:
    generators = [_generator(seed, name, identity) for identity in identities]
    return method.function(tensors, weights, generators, **parameters)


def _dense(adapters: Adapters, name: str, weights: Sequence[float], apply: Any) -> torch.Tensor:
    return apply(dense_deltas(adapters, name), weights, name)


def dense_deltas(adapters: Adapters, name: str) -> list[torch.Tensor]:
    """ΔW (out, in) of one module of each adapter, zero where it has no such module."""
    present = [adapter.get(name) for adapter in adapters]
    like = next(factor for factor in present if factor is not None)
    return [_delta(factor, like) for factor in present]


def _delta(factors: Factors | None, like: Factors) -> torch.Tensor:
    if factors is None:
        return like.a.new_zeros(like.b.shape[0], like.a.shape[1])
    return factors.scaling * (factors.b @ factors.a)


def _core(cores: CoreSpace, name: str, weights: Sequence[float], apply: Any) -> Pair:
    from sstmerge_core.space import canonical

    module = cores[name]
    left, right = canonical(module)
    merged = apply([left.T @ core @ right for core in module.cores], weights, name)
    return balanced(module.q_out @ left, merged, module.q_in @ right)[0]


def _factors(adapters: Adapters, name: str, weights: Sequence[float], apply: Any) -> Pair:
    """A and B each merged with √(w·s) as PEFT's add_weighted_adapter does; an adapter without the module is left out.

    Weights are not negative here: they are shares.
    """
    present = [(adapter.get(name), weight) for adapter, weight in zip(adapters, weights, strict=True)]
    zero = next(factor for factor, _ in present if factor is not None)
    roots = [math.sqrt(weight * factor.scaling) if factor is not None else 0.0 for factor, weight in present]
    # factors may be transposed views, ΔW never is: methods need not care how their tensors lie in memory
    a = [(zero.a * 0 if factor is None else factor.a).contiguous() for factor, _ in present]
    b = [(zero.b * 0 if factor is None else factor.b).contiguous() for factor, _ in present]
    return apply(a, roots, f"{name}/A"), apply(b, roots, f"{name}/B")


def _refuse_unequal_ranks(adapters: Adapters, names: Sequence[str]) -> None:
    for name in names:
        found = {adapter[name].a.shape[0] for adapter in adapters if name in adapter}
        if len(found) > 1:
            fault = f"the adapters have ranks {', '.join(map(str, sorted(found)))} at {name}"
            raise RecipeError(Problem("parameter space=factors", fault, "Use space=delta or space=core."))


def _generator(seed: int, module: str, adapter: str) -> torch.Generator:
    """One random stream per (seed, module, adapter), so that the order of neither matters."""
    import torch

    digest = hashlib.sha256(f"{seed}/{module}/{adapter}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
