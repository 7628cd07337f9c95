"""Adapters in, merged adapter out: the one way in to every method.

`merge` is pure: factors, method, parameters (and gradients or base weights where the method needs them) → `Merged`. The
methods themselves are in `sstmerge_core.methods`, how each kind is applied in `sstmerge_core.merge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sstmerge_core import methods
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.merge import combination as sums
from sstmerge_core.merge import core, elementwise, located, patch
from sstmerge_core.merge.merged import Calibrated, Merged, MergedModule, Pair, Rows, truncate

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors

__all__ = ["Calibrated", "Merged", "MergedModule", "Pair", "Rows", "deltas", "effective_weights", "merge", "truncate"]

REFERENCES = {"base": 0, "adapter": 1}
"""Adapters that a reference point takes"""


def merge(
    adapters: Sequence[Mapping[str, Factors]],
    method: str,
    parameters: Mapping[str, Any],
    *,
    identities: Sequence[str] = (),
    calibrated: Calibrated | None = None,
    base: Callable[[str], torch.Tensor] | None = None,
    elected: Sequence[Mapping[str, torch.Tensor]] | None = None,
    memory: dict[Any, Any] | None = None,
    alpha: float | None = None,
) -> Merged:
    """Merge `adapters` (utility experts first, safety last) by `method`.

    `identities` name the adapters for the random masks (their SHA-256), so that a mask does not depend on the order.
    `calibrated` is required by the methods with ``needs_fisher``, `base` (module → W₀, (out, in) float32) by those with
    ``needs_base``, `elected` (of each adapter the weights that matter to its task, see `fisher.importance.elect`) by
    those with ``needs_importance``. `memory` is kept by the caller between the points of a sweep over one set of
    adapters and gradients: what does not depend on α is solved once. `alpha` overrides the strength that a method would
    find by itself. All arithmetic is float32, the eigenvalue problem float64. Raises RecipeError for unknown methods
    and parameters, and for a number of adapters the method cannot take.
    """
    entry = methods.get(method)
    complete = entry.complete(parameters)
    _refuse_wrong_number(entry, len(adapters))
    if entry.needs_fisher and calibrated is None:
        raise RecipeError(Problem(f"method {method}", "needs gradients of harmful and benign samples", ""))
    if entry.kind in ("combination", "reference"):
        return sums.combination(adapters, entry, complete)
    if entry.kind == "angular":
        return sums.angular(adapters, entry, complete)
    if entry.kind == "weights":
        if base is None:
            raise RecipeError(Problem(f"method {method}", "needs the base model's weights", ""))
        return sums.base_slerp(adapters, entry, complete, base)
    if entry.kind == "elementwise":
        return elementwise.elementwise(adapters, entry, complete, identities or [str(n) for n in range(len(adapters))])
    if entry.kind == "located":
        if elected is None:
            raise RecipeError(Problem(f"method {method}", "needs the weights that matter to each side", ""))
        return located.located(adapters, entry, complete, elected)
    if entry.kind == "core":
        return core.core(adapters, entry, complete, calibrated)
    strength = complete.pop("alpha", None) if alpha is None else alpha
    return _solved(adapters, entry, complete, calibrated, memory).at(strength)


def _solved(
    adapters: Sequence[Mapping[str, Factors]],
    entry: methods.Method,
    parameters: dict[str, Any],
    calibrated: Calibrated | None,
    memory: dict[Any, Any] | None,
) -> patch.Solved:
    """The patch of these parameters, from `memory` where the last point solved the same one."""
    key = (entry.name, tuple(sorted(parameters.items())))
    if memory is not None and key in memory:
        return memory[key]
    if entry.kind == "patch":
        assert calibrated is not None
        found = patch.solve_patch(entry, parameters, calibrated)
    else:
        from sstmerge_core.space import core_space

        space = calibrated.space if calibrated else core_space(adapters)
        found = patch.solve_mask(entry, parameters, space, calibrated if entry.needs_fisher else None)
    if memory is not None:
        memory.clear()  # one patch is enough: a sweep goes through α innermost
        memory[key] = found
    return found


def _refuse_wrong_number(entry: methods.Method, given: int) -> None:
    expected = REFERENCES.get(entry.name)
    if expected is not None and given != expected:
        fault = f"{entry.name} takes {expected} adapters, {given} were given"
        raise RecipeError(Problem("adapters", fault, ""))
    if expected is None and (given < 2 or (entry.at_most is not None and given > entry.at_most)):
        fault = f"{entry.name} takes {entry.at_most or 'at least 2'} adapters, {given} were given"
        raise RecipeError(Problem("adapters", fault, "Give the utility adapters first, then the safety adapter."))


def effective_weights(method: str, parameters: Mapping[str, Any], experts: int = 1) -> dict[str, float] | str:
    """What multiplies the ΔW of the `experts` utility adapters and of the safety adapter, which comes last.

    Numbers where the method is a weighted sum, otherwise words. No torch.
    """
    entry = methods.get(method)
    complete = entry.complete(parameters)
    symbols = ["ΔU"] if experts == 1 else [f"ΔU{number}" for number in range(1, experts + 1)]
    if entry.kind == "combination":
        return dict(zip((*symbols, "ΔS"), entry.function(experts + 1, **complete), strict=True))
    if entry.kind == "reference":
        return {"ΔW": 1.0} if method == "adapter" else {}
    alpha: Any = complete.get("alpha")
    on_utility = f"{(1 - alpha) / experts:.4g}" if entry.axis == "share" else ""
    each = "ΔU" if experts == 1 else f"each of {symbols[0]} to {symbols[-1]}"
    if entry.kind == "elementwise":
        return f"{on_utility} of what is kept of {each} and {alpha:g} of what is kept of ΔS"
    if entry.kind == "located":
        return f"{each} where only its own samples need it, {alpha:g} of ΔS where only safety's do"
    if method == "fisher":
        return f"{on_utility} of {each} and {alpha:g} of ΔS, each coordinate weighted by its Fisher information"
    if method == "model_stock" and experts > 1:
        return f"the mean of all {experts + 1} adapters, scaled per module by how well they agree"
    how = complete.get("experts", "mean")
    share = f", {1 / experts:.4g} of each" if how == "mean" else ""
    side = "" if experts == 1 else f"; ΔU is the {how} of the {experts} utility experts{share}"
    return _in_words(entry, complete) + side


def _in_words(entry: methods.Method, parameters: Mapping[str, Any]) -> str:
    alpha: Any = parameters.get("alpha")
    if entry.kind == "angular":
        return "weights found per module from the angle between ΔU and ΔS"
    if entry.kind == "weights":
        return f"{alpha:g} of the way from the base's weights to the tuned ones, on the arc between them"
    if entry.kind == "core":
        where = f"in the modules whose cosine is below {parameters['threshold']:g}, ΔU elsewhere"
        mixed = "the part of ΔU along ΔS" if alpha is None else f"{1 - alpha:g} of ΔU and {alpha:g} of ΔS"
        return f"{mixed} {where}"
    if entry.name == "alignguard":
        return f"ΔU without {parameters['eta']:g} of its alignment-critical part, plus {alpha:g} times ΔS"
    target = "ΔS" if parameters["mode"] == "additive" else "ΔS − ΔU"
    strength = "as much as the budget allows of" if alpha is None else f"{alpha:g} times"
    return f"all of ΔU plus {strength} the selected part δ of {target}"


def deltas(merged: Merged) -> Mapping[str, Callable[[], torch.Tensor]]:
    """Exact ΔW by module, as `ResidentModel.set_delta` takes them."""
    return {name: module.delta for name, module in merged.modules.items()}
