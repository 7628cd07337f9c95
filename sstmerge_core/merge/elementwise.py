"""Element-wise methods: on the exact ΔW, in core coordinates, on the factors apart, or on aligned singular vectors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.merge.combination import Adapters
from sstmerge_core.merge.merged import Merged, MergedModule, Pair, balanced, ranks
from sstmerge_core.methods.singular import decomposed
from sstmerge_core.methods.sparsify import Cut, largest_over
from sstmerge_core.methods.weighting import share

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.methods import Method
    from sstmerge_core.space import CoreSpace


def elementwise(adapters: Adapters, method: Method, parameters: Mapping[str, Any], identities: Sequence[str]) -> Merged:
    """Apply `method` per module. `identities` name the adapters for the random masks.

    In ``delta`` the result is dense and the adapter on disk its best approximation of rank Σ r_i; in ``core`` and
    ``factors`` it is low-rank and exact. Raises RecipeError for factors of unequal rank, and for factors that are to be
    trimmed over all modules together: A and B are not of one size.
    """
    names = sorted(set().union(*adapters))
    weights = share(len(adapters), parameters["alpha"])
    space = parameters["space"]
    make: Callable[..., Any]
    tensor: Callable[[str, int], torch.Tensor] | None = None
    if space == "factors":
        if parameters.get("trim") == "global":
            fault = "A and B of a module are not of one size, so no magnitude divides them together"
            raise RecipeError(Problem("parameter trim=global", fault, "Use space=delta or space=core, or trim=module."))
        _refuse_unequal_ranks(adapters, names)
        make, rank = partial(_factors, adapters), max(ranks(adapter) for adapter in adapters)
    elif space == "core":
        from sstmerge_core.space import core_space

        cores = core_space(adapters)
        make, tensor = partial(_core, cores), partial(_turned_one, cores)
        rank = max(min(*cores[name].cores[0].shape) for name in names)
    else:
        make, tensor = partial(_dense, adapters), partial(dense_delta, adapters)
        rank = sum(ranks(adapter) for adapter in adapters)
    thresholds: Sequence[float | None] = [None] * len(adapters)
    if tensor is not None and parameters.get("trim") == "global":
        thresholds = _thresholds(parameters["density"], tensor, names, len(adapters))
    apply = partial(_apply, method, parameters, identities=identities, thresholds=thresholds)
    made: dict[str, Any] = {name: partial(make, name, weights, parameters, apply) for name in names}
    if space == "delta":
        return Merged({name: MergedModule(one, None) for name, one in made.items()}, rank)
    return Merged({name: MergedModule.product(one) for name, one in made.items()}, rank)


def aligned(adapters: Adapters, method: Method, parameters: Mapping[str, Any], identities: Sequence[str]) -> Merged:
    """Apply `method` per module to ΣVᵢᵀ (R, in) of [ΔW₁ … ΔW_N] = UΣ[V₁ᵀ … V_Nᵀ]; low-rank and exact (KnOTS)."""
    import torch

    from sstmerge_core.space import core_space

    space = core_space(adapters)
    bases = {name: decomposed(torch.cat(module.cores, dim=1))[0].to(module.q_out) for name, module in space.items()}
    weights = share(len(adapters), parameters["alpha"])
    thresholds: Sequence[float | None] = [None] * len(adapters)
    if parameters["trim"] == "global":
        thresholds = _thresholds(parameters["density"], partial(_rows, space, bases), list(space), len(adapters))
    apply = partial(_apply, method, parameters, identities=identities, thresholds=thresholds)

    def factors(name: str) -> Pair:
        left = space[name].q_out @ bases[name]
        rows = [_rows(space, bases, name, index) for index in range(len(adapters))]
        return scaled(apply(rows, weights, name), parameters) if rows[0].numel() else rows[0], left

    modules = {name: MergedModule.product(partial(factors, name)) for name in space}
    return Merged(modules, max(basis.shape[1] for basis in bases.values()))


def _rows(space: CoreSpace, bases: Mapping[str, torch.Tensor], name: str, index: int) -> torch.Tensor:
    """ΣVᵢᵀ = UᵀΔWᵢ (R, in) of one module of the adapter at `index`."""
    module = space[name]
    return (bases[name].T @ module.cores[index] @ module.q_in.T).contiguous()


def _thresholds(
    density: float, tensor: Callable[[str, int], torch.Tensor], names: Sequence[str], adapters: int
) -> list[float]:
    """Of each adapter the magnitude from which the density of all its modules' elements are kept."""

    def of(index: int) -> Iterator[torch.Tensor]:
        return (tensor(name, index) for name in names)

    return [largest_over(partial(of, index), density) for index in range(adapters)]


def _apply(
    method: Method,
    parameters: Mapping[str, Any],
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    name: str,
    *,
    identities: Sequence[str],
    thresholds: Sequence[float | None],
) -> torch.Tensor:
    seed = parameters.get("seed", 0)
    cuts = [
        Cut(_generator(seed, name, identity), threshold)
        for identity, threshold in zip(identities, thresholds, strict=True)
    ]
    return method.function(tensors, weights, cuts, **method.own(parameters))


def _dense(
    adapters: Adapters, name: str, weights: Sequence[float], parameters: Mapping[str, Any], apply: Any
) -> torch.Tensor:
    return scaled(apply(_OneByOne(adapters, name), weights, name), parameters)


class _OneByOne(Sequence["torch.Tensor"]):
    """ΔW (out, in) of one module of each adapter, made when asked for and kept by whoever asks.

    A method that makes one sparse after the other holds one whole one at a time.
    """

    def __init__(self, adapters: Adapters, name: str):
        self._adapters, self._name = adapters, name

    def __len__(self) -> int:
        return len(self._adapters)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return dense_delta(self._adapters, self._name, range(len(self))[index])


def scaled(merged: torch.Tensor, parameters: Mapping[str, Any]) -> torch.Tensor:
    """`merged` times λ, where the method has one."""
    scale = parameters.get("scale", 1.0)
    return merged if scale == 1.0 else scale * merged


def dense_deltas(adapters: Adapters, name: str) -> list[torch.Tensor]:
    """ΔW (out, in) of one module of each adapter, zero where it has no such module."""
    return [dense_delta(adapters, name, index) for index in range(len(adapters))]


def dense_delta(adapters: Adapters, name: str, index: int) -> torch.Tensor:
    """ΔW (out, in) of one module of the adapter at `index`, zero where it has no such module."""
    return _delta(adapters[index].get(name), next(adapter[name] for adapter in adapters if name in adapter))


def _delta(factors: Factors | None, like: Factors) -> torch.Tensor:
    if factors is None:
        return like.a.new_zeros(like.b.shape[0], like.a.shape[1])
    return (factors.b @ factors.a).mul_(factors.scaling)


def _core(cores: CoreSpace, name: str, weights: Sequence[float], parameters: Mapping[str, Any], apply: Any) -> Pair:
    turned, left, right = _turned(cores, name)
    return balanced(left, scaled(apply(turned, weights, name), parameters), right)[0]


def _turned_one(cores: CoreSpace, name: str, index: int) -> torch.Tensor:
    return _turned(cores, name)[0][index]


def _turned(cores: CoreSpace, name: str) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Every adapter's core matrix of one module in its canonical basis, and that basis (out, p) and (in, q)."""
    from sstmerge_core.space import canonical

    module = cores[name]
    left, right = canonical(module)
    return [left.T @ core @ right for core in module.cores], module.q_out @ left, module.q_in @ right


def _factors(
    adapters: Adapters, name: str, weights: Sequence[float], parameters: Mapping[str, Any], apply: Any
) -> Pair:
    """A and B each merged with √(w·s) as PEFT's add_weighted_adapter does; an adapter without the module is left out.

    A mean over what agrees would divide s out again, so in the flavour of the paper √s is part of what is averaged.
    Weights are not negative here: they are shares.
    """
    present = [(adapter.get(name), weight) for adapter, weight in zip(adapters, weights, strict=True)]
    zero = next(factor for factor, _ in present if factor is not None)
    inside = parameters.get("flavour") == "paper"
    sizes = [factor.scaling**0.5 if factor is not None and inside else 1.0 for factor, _ in present]
    roots = [
        math.sqrt(weight * factor.scaling) / size if factor is not None else 0.0
        for (factor, weight), size in zip(present, sizes, strict=True)
    ]
    # factors may be transposed views, ΔW never is: methods need not care how their tensors lie in memory
    a, b = (
        [
            (side(zero) * 0 if factor is None else size * side(factor)).contiguous()
            for (factor, _), size in zip(present, sizes, strict=True)
        ]
        for side in (attrgetter("a"), attrgetter("b"))
    )
    return apply(a, roots, f"{name}/A"), scaled(apply(b, roots, f"{name}/B"), parameters)


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
