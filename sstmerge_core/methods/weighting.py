"""Weights of the adapters that several methods share, and how people say them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share(n: int, alpha: float) -> tuple[float, ...]:
    """(1−α) shared equally by the n−1 utility experts, α on the safety adapter."""
    return (*((1.0 - alpha) * weight for weight in side(n - 1)), alpha)


def side(experts: int, how: str = "mean") -> tuple[float, ...]:
    """Weights that make ΔU of the utility experts: their mean, or their sum."""
    return (1.0 / experts if how == "mean" else 1.0,) * experts


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
    weight = side(experts, parameters["experts"])[0]
    utility = each(experts) if weight == 1.0 else f"{weight:.4g} of {each(experts)}"
    return f"{utility} plus {parameters['alpha']:g} times ΔS{times(parameters)}"


def kept_shares(parameters: Mapping[str, Any], experts: int) -> str:
    """``0.5 of what is kept of ΔU and 0.5 of what is kept of ΔS, all of it times 2``."""
    kept = f"{share_of_each(parameters, experts)} of what is kept of {each(experts)}"
    return f"{kept} and {parameters['alpha']:g} of what is kept of ΔS{times(parameters)}"


def times(parameters: Mapping[str, Any]) -> str:
    """A half-sentence that says what the whole is multiplied by; empty at 1."""
    scale = parameters.get("scale", 1.0)
    return "" if scale == 1.0 else f", all of it times {scale:g}"
