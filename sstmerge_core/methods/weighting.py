"""Weights of the adapters that several methods share, and how people say them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, RecipeError

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View


def share(n: int, alpha: float) -> tuple[float, ...]:
    """(1−α) shared equally by the n−1 utility experts, α on the safety adapter."""
    return (*((1.0 - alpha) * weight for weight in side(n - 1)), alpha)


def side(experts: int, how: str = "mean") -> tuple[float, ...]:
    """Weights that make ΔU of the utility experts: their mean, or their sum."""
    return (1.0 / experts if how == "mean" else 1.0,) * experts


def mixed(cores: Sequence[torch.Tensor], how: str = "mean") -> torch.Tensor:
    """ΔU of the utility experts' core matrices: their mean, or their sum."""
    weights = side(len(cores), how)
    total = weights[0] * cores[0]
    for weight, core in zip(weights[1:], cores[1:], strict=True):
        total = total + weight * core
    return total


def weighted(found: Sequence[float], weights: str) -> tuple[float, ...]:
    """`found`, each times the adapter's own factor of `weights` (``1,-0.5``; nothing: 1 for each).

    Raises RecipeError where there are not as many factors as adapters.
    """
    if not weights:
        return tuple(found)
    factors = [float(one) for one in weights.split(",")]
    if len(factors) != len(found):
        fault = f"has {len(factors)} numbers for {len(found)} adapters"
        fix = "Give one for each adapter: the utility adapters in their order, then the last."
        raise RecipeError(Problem(f"parameter weights={weights}", fault, fix))
    return tuple(factor * weight for factor, weight in zip(factors, found, strict=True))


def sides(view: View, alpha: float, experts: str, weights: str) -> tuple[torch.Tensor, torch.Tensor]:
    """ΔU of the utility experts and α·ΔS as core matrices (p, q) float64, each times its factor of `weights`."""
    factors = weighted((*side(len(view.adapters) - 1, experts), alpha), weights)
    parts = [factor * core.double() for factor, core in zip(factors, view.adapters, strict=True)]
    return sum(parts[1:-1], start=parts[0]), parts[-1]


def names_of(experts: int) -> tuple[str, ...]:
    """ΔU, or ΔU1, ΔU2 … of several experts."""
    return ("ΔU",) if experts == 1 else tuple(f"ΔU{number}" for number in range(1, experts + 1))


def each(experts: int) -> str:
    """``ΔU``, or ``each of ΔU1 to ΔU3``."""
    found = names_of(experts)
    return found[0] if experts == 1 else f"each of {found[0]} to {found[-1]}"


def share_of_each(parameters: Mapping[str, Any], experts: int) -> str:
    """What each utility expert is multiplied by where α is the safety adapter's share."""
    return f"{(1 - parameters['alpha']) / experts:.4g}"


def about_side(parameters: Mapping[str, Any], experts: int) -> str:
    """A half-sentence that says what ΔU is; empty for one expert."""
    if experts == 1:
        return ""
    how = parameters.get("experts", "mean")
    part = f", {1 / experts:.4g} of each" if how == "mean" else ""
    return f"; ΔU is the {how} of the {experts} utility experts{part}"


def added(parameters: Mapping[str, Any], experts: int) -> str:
    """``ΔU1 to ΔU3 plus 0.5 times ΔS, all of it times 2``."""
    own = (*side(experts, parameters["experts"]), parameters["alpha"])
    if parameters.get("weights"):
        found = zip(weighted(own, parameters["weights"]), (*names_of(experts), "ΔS"), strict=True)
        return " plus ".join(f"{weight:.4g} times {name}" for weight, name in found) + times(parameters)
    utility = each(experts) if own[0] == 1.0 else f"{own[0]:.4g} of {each(experts)}"
    return f"{utility} plus {own[-1]:g} times ΔS{times(parameters)}"


def kept_shares(parameters: Mapping[str, Any], experts: int) -> str:
    """``0.5 of what is kept of ΔU and 0.5 of what is kept of ΔS, all of it times 2``."""
    kept = f"{share_of_each(parameters, experts)} of what is kept of {each(experts)}"
    return f"{kept} and {parameters['alpha']:g} of what is kept of ΔS{times(parameters)}{first(parameters, experts)}"


def first(parameters: Mapping[str, Any], experts: int) -> str:
    """A half-sentence that says what each adapter is multiplied by before anything else; empty where by nothing."""
    if not parameters.get("weights"):
        return ""
    found = zip(weighted((1.0,) * (experts + 1), parameters["weights"]), (*names_of(experts), "ΔS"), strict=True)
    return f"; first of all {', '.join(f'{name} is multiplied by {weight:.4g}' for weight, name in found)}"


def times(parameters: Mapping[str, Any]) -> str:
    """A half-sentence that says what the whole is multiplied by; empty at 1."""
    scale = parameters.get("scale", 1.0)
    return "" if scale == 1.0 else f", all of it times {scale:g}"
