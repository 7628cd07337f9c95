"""Adapters in, merged adapter out: the one way in to every method.

`merge` is pure: factors, method, parameters (and gradients or base weights where the method needs them) → `Merged`. The
methods themselves are in `sstmerge_core.methods`, how each kind is applied in `sstmerge_core.merge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sstmerge_core import methods
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.merge import combination as sums
from sstmerge_core.merge import core, edited, elementwise, located, patch
from sstmerge_core.merge.combination import Adapters
from sstmerge_core.merge.merged import Calibrated, Merged, MergedModule, Pair, Rows, truncate
from sstmerge_core.merge.weighed import weighed, weighed_space
from sstmerge_core.methods.weighting import names_of, weighted

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.fitting import Fit

__all__ = [
    "Calibrated",
    "Merged",
    "MergedModule",
    "Pair",
    "Rows",
    "deltas",
    "dense_and_low_rank",
    "effective_weights",
    "merge",
    "truncate",
]


@dataclass(frozen=True)
class Given:
    """What a method may need beside the adapters and its parameters."""

    identities: Sequence[str]
    calibrated: Calibrated | None
    base: Callable[[str], torch.Tensor] | None
    elected: Sequence[Mapping[str, torch.Tensor]] | None
    direction: Callable[[str], torch.Tensor] | None
    fit: Fit | None
    inputs: Mapping[str, torch.Tensor] | None
    memory: dict[Any, Any] | None
    alpha: float | None


def merge(
    adapters: Sequence[Mapping[str, Factors]],
    method: str,
    parameters: Mapping[str, Any],
    *,
    identities: Sequence[str] = (),
    calibrated: Calibrated | None = None,
    base: Callable[[str], torch.Tensor] | None = None,
    elected: Sequence[Mapping[str, torch.Tensor]] | None = None,
    direction: Callable[[str], torch.Tensor] | None = None,
    fit: Fit | None = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
    memory: dict[Any, Any] | None = None,
    alpha: float | None = None,
) -> Merged:
    """Merge `adapters` (utility experts first, safety last) by `method`.

    `identities` name the adapters for the random masks (their SHA-256), so that a mask does not depend on the order.
    `calibrated` is required by the methods with ``needs_fisher``, `base` (module → W₀, (out, in) float32) by those
    with ``needs_base``, `elected` (of each adapter the weights that matter to its task, see
    `fisher.importance.elect`) by those with ``needs_importance``. `direction` (module → V, (out, in), aligned minus
    unaligned weights) is used by those with ``needs_aligned_part``, which take ΔS without it. `fit` is required by
    those that ``fits``: what was fitted of these adapters by `sstmerge_core.fitting` with the same parameters;
    `inputs` by those with ``needs_inputs``: E[xxᵀ] of harmful samples in these adapters' core coordinates, see
    `fisher.inputs`. `memory` is kept by the caller between the points of a sweep over one set of adapters and
    gradients: what does not depend on α is solved once. `alpha` overrides the strength that a method would find by
    itself. All arithmetic is float32, the eigenvalue problem float64. Raises RecipeError for unknown methods and
    parameters, and for a number of adapters the method cannot take.
    """
    entry = methods.get(method)
    complete = entry.complete(parameters)
    _refuse_wrong_number(entry, len(adapters))
    lacking = {
        "gradients of harmful and benign samples": entry.needs_fisher and calibrated is None,
        "gradients of near misses": entry.needs_fisher
        and entry.needs_refused
        and (calibrated is None or calibrated.contrast is None),
        "the base model's weights": entry.needs_base and base is None,
        "the weights that matter to each side": entry.needs_importance and elected is None,
        "what harmful samples put into each module": entry.needs_inputs and inputs is None,
        "what was fitted on samples": entry.fits and fit is None,
    }
    for what, lacks in lacking.items():
        if lacks:
            raise RecipeError(Problem(f"method {method}", f"needs {what}", ""))
    if "weights" in entry.driver and complete["weights"]:
        factors = weighted((1.0,) * len(adapters), complete["weights"])
        adapters = [weighed(own, factor) for own, factor in zip(adapters, factors, strict=True)]
        if calibrated is not None:
            calibrated = replace(calibrated, space=weighed_space(calibrated.space, factors))
    names = identities or [str(index) for index in range(len(adapters))]
    given = Given(names, calibrated, base, elected, direction, fit, inputs, memory, alpha)
    return DRIVERS[entry.kind](adapters, entry, complete, given)


def _on_base(adapters: Adapters, entry: methods.Method, parameters: dict[str, Any], given: Given) -> Merged:
    assert given.base is not None
    return sums.on_base(adapters, entry, parameters, given.base)


def _located(adapters: Adapters, entry: methods.Method, parameters: dict[str, Any], given: Given) -> Merged:
    assert given.elected is not None
    return located.located(adapters, entry, parameters, given.elected)


def _fitted(adapters: Adapters, entry: methods.Method, parameters: dict[str, Any], given: Given) -> Merged:
    """The core matrices that were fitted, as they are."""
    from sstmerge_core.space import core_space

    assert given.fit is not None
    space = core_space(adapters)
    bases = {name: (module.q_out, module.q_in) for name, module in space.items()}
    cores = {name: given.fit.cores[name].to(module.q_out) for name, module in space.items()}
    return core.from_cores(cores, bases, statistics=list(given.fit.statistics))


def _edited(adapters: Adapters, entry: methods.Method, parameters: dict[str, Any], given: Given) -> Merged:
    assert given.fit is not None and given.base is not None
    return edited.edited(adapters, parameters, given.base, given.fit)


def _solved(adapters: Adapters, entry: methods.Method, parameters: dict[str, Any], given: Given) -> Merged:
    """ΔU + α·δ; δ from ``memory`` where the last point solved the same one."""
    strength = parameters.pop("alpha", None) if given.alpha is None else given.alpha
    key = (entry.name, tuple(sorted(parameters.items())))
    if given.memory is not None and key in given.memory:
        return given.memory[key].at(strength)
    if entry.kind == "patch":
        assert given.calibrated is not None
        found = patch.solve_patch(entry, parameters, given.calibrated)
    else:
        from sstmerge_core.space import core_space

        space = given.calibrated.space if given.calibrated else core_space(adapters)
        found = patch.solve_mask(entry, parameters, space, given.calibrated if entry.needs_fisher else None)
    if given.memory is not None:
        given.memory.clear()  # one patch is enough: a sweep goes through α innermost
        given.memory[key] = found
    return found.at(strength)


DRIVERS: dict[str, Callable[[Adapters, methods.Method, dict[str, Any], Given], Merged]] = {
    "reference": lambda adapters, entry, parameters, given: sums.combination(adapters, entry, parameters),
    "combination": lambda adapters, entry, parameters, given: sums.combination(adapters, entry, parameters),
    "angular": lambda adapters, entry, parameters, given: sums.angular(adapters, entry, parameters),
    "weights": _on_base,
    "elementwise": lambda adapters, entry, parameters, given: elementwise.elementwise(
        adapters, entry, parameters, given.identities
    ),
    "aligned": lambda adapters, entry, parameters, given: elementwise.aligned(
        adapters, entry, parameters, given.identities
    ),
    "located": _located,
    "core": lambda adapters, entry, parameters, given: core.core(
        adapters, entry, parameters, given.calibrated, given.direction, given.inputs if entry.needs_inputs else None
    ),
    "mask": _solved,
    "patch": _solved,
    "learned": _fitted,
    "iterated": _fitted,
    "edited": _edited,
}
"""How each kind of method is applied"""


def _refuse_wrong_number(entry: methods.Method, given: int) -> None:
    if (entry.takes is None and given >= 2) or entry.takes == given:
        return
    fault = f"{entry.name} takes {'at least 2' if entry.takes is None else entry.takes} adapters, {given} were given"
    fix = "Give the utility adapters first, then the safety adapter." if entry.takes is None else ""
    raise RecipeError(Problem("adapters", fault, fix))


def effective_weights(method: str, parameters: Mapping[str, Any], experts: int = 1) -> dict[str, float] | str:
    """What multiplies the ΔW of the `experts` utility adapters and of the safety or harm adapter, which comes last.

    Numbers where the method is a weighted sum, otherwise words. No torch.
    """
    entry = methods.get(method)
    complete = entry.complete(parameters)
    if entry.kind == "reference":
        return {"ΔW": 1.0} if entry.takes else {}
    if entry.kind == "combination":
        last = "ΔH" if entry.takes_harm else "ΔS"
        return dict(zip((*names_of(experts), last), entry.function(experts + 1, **complete), strict=True))
    return entry.acts(complete, experts)


def deltas(merged: Merged) -> Mapping[str, Callable[[], torch.Tensor]]:
    """Exact ΔW by module, as `ResidentModel.set_delta` takes them."""
    return {name: module.delta for name, module in merged.modules.items()}


def dense_and_low_rank(
    merged: Merged,
) -> tuple[dict[str, Callable[[], torch.Tensor]], dict[str, Callable[[], Pair]]]:
    """Exact ΔW of the modules that are dense, and A and B of the others, as `ResidentModel.set_delta` takes both."""
    low_rank = {name: module.factors for name, module in merged.modules.items() if module.factors is not None}
    return {name: module.delta for name, module in merged.modules.items() if name not in low_rank}, low_rank
