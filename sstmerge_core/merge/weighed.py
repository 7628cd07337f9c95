"""Adapters whose ΔW is multiplied by a weight of its own before a method sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sstmerge_core.adapters import Factors
    from sstmerge_core.space import CoreSpace


def weighed(adapter: Mapping[str, Factors], weight: float) -> dict[str, Factors]:
    """w·ΔW as factors.

    A scaling stays positive, since its root is taken where A and B are merged apart: B has the sign, and is zero where
    the weight is.
    """
    if weight > 0:
        return {name: replace(own, scaling=weight * own.scaling) for name, own in adapter.items()}
    if weight == 0:
        return {name: replace(own, b=0.0 * own.b) for name, own in adapter.items()}
    return {name: replace(own, b=-own.b, scaling=-weight * own.scaling) for name, own in adapter.items()}


def weighed_space(space: CoreSpace, weights: Sequence[float]) -> CoreSpace:
    """The same coordinates, in which each adapter's core matrix is multiplied by its weight."""
    return {
        name: replace(own, cores=tuple(weight * core for weight, core in zip(weights, own.cores, strict=True)))
        for name, own in space.items()
    }
