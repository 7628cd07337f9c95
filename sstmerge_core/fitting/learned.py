"""From a method of kind ``learned`` to the fit of its coefficients in the adapters' core space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.fitting.descent import Descent, descend
from sstmerge_core.fitting.fit import Fit
from sstmerge_core.fitting.kept import Checkpoint
from sstmerge_core.methods.weighting import mixed

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fitting.objective import Objective
    from sstmerge_core.methods import Method
    from sstmerge_core.methods.coefficients import Coefficients
    from sstmerge_core.space import CoreSpace


def learn(
    method: Method,
    parameters: Mapping[str, Any],
    space: CoreSpace,
    objective: Objective,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fit:
    """Fit the coefficients of `method` to `objective`; see `descend`. `parameters` are complete."""
    how = Descent(parameters["steps"], parameters["rate"], parameters["ridge"])
    return descend(coefficients(method, parameters, space), objective, how, checkpoint=checkpoint, progress=progress)


def coefficients(method: Method, parameters: Mapping[str, Any], space: CoreSpace) -> dict[str, Coefficients]:
    """What is fitted in every module; core matrices are those of `space`.

    The method sees each module in its canonical basis, where the steps of Adam, which go by element, do not depend on
    how the adapters were factorised.
    """
    from sstmerge_core.space import View, canonical

    found = {}
    for name, module in space.items():
        left, right = (turn.double() for turn in canonical(module))
        turned = tuple(left.T @ core.double() @ right for core in module.cores)
        view = View(turned, mixed(turned[:-1], parameters["experts"]))
        own = method.function(view, parameters["alpha"], **method.own(parameters))
        found[name] = replace(own, core=partial(_back, own.core, left, right))
    return found


def _back(
    core: Callable[[torch.Tensor], torch.Tensor], left: torch.Tensor, right: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    return left @ core(values) @ right.T
