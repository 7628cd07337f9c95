"""Coefficients of a merge by Adam (Kingma & Ba, ICLR 2015, arXiv 1412.6980), resumable at every step bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sstmerge_core.fitting.fit import Fit
from sstmerge_core.fitting.kept import Checkpoint

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fitting.objective import Objective
    from sstmerge_core.methods.coefficients import Coefficients

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Descent:
    """How coefficients are fitted; see `sstmerge_core.methods.shared` for what each means."""

    steps: int = 30
    rate: float = 0.05
    ridge: float = 0.1


def descend(
    coefficients: Mapping[str, Coefficients],
    objective: Objective,
    how: Descent,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fit:
    """Minimise objective + ridge · mean((c − c₀)²) over the coefficients c of all modules together.

    The learning rate falls from `rate` to 0 as a cosine. `progress` is told (steps done, steps) after every step and
    may raise to stop; what was done by then is in `checkpoint`. Coefficients are float64, core matrices float32.
    Memory: 32 bytes a coefficient and 12 a number of the core matrices, beside what the objective takes. Statistics:
    ``fitted`` coefficients, ``steps``, the minibatch's objective at the first and the last step (``loss_first``,
    ``loss_last``, without the ridge), ``moved``, the root mean square of c − c₀, and per module what the method tells.
    """
    import torch

    checkpoint = checkpoint or Checkpoint()
    names = list(coefficients)
    sizes = [len(coefficients[name].start) for name in names]
    start = torch.cat([coefficients[name].start.double() for name in names]) if names else torch.zeros(0).double()
    values = start.clone().requires_grad_()
    adam = torch.optim.Adam([values], lr=how.rate)
    losses: list[float] = []
    if kept := checkpoint.load():
        losses = _restore(kept, values, adam)
    progress(len(losses), how.steps)
    for step in range(len(losses), how.steps if len(start) else 0):
        adam.param_groups[0]["lr"] = how.rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
        adam.zero_grad(set_to_none=True)
        cores = _cores(coefficients, values, sizes)
        loss, gradients = objective.gradient(cores, step)
        moving = [name for name in names if cores[name].requires_grad]
        ridge = how.ridge * (values - start).square().mean()
        torch.autograd.backward(
            [*(cores[name] for name in moving), ridge], [*(gradients[name].to(cores[name]) for name in moving), None]
        )
        adam.step()
        losses.append(loss)
        checkpoint.save(_state(values, adam), {"losses": losses})
        progress(len(losses), how.steps)
    with torch.no_grad():
        cores = _cores(coefficients, values, sizes)
        return Fit(cores, _told(coefficients, values.detach(), start, sizes, losses))


def _cores(coefficients: Mapping[str, Coefficients], values: torch.Tensor, sizes: list[int]) -> dict[str, torch.Tensor]:
    parts = values.split(sizes) if sizes else ()
    return {name: own.core(part).float() for (name, own), part in zip(coefficients.items(), parts, strict=True)}


def _state(values: torch.Tensor, adam: torch.optim.Adam) -> dict[str, torch.Tensor]:
    return {"values": values, **{moment: adam.state[values][moment] for moment in _MOMENTS}}


def _restore(
    kept: tuple[dict[str, torch.Tensor], dict[str, Any]], values: torch.Tensor, adam: torch.optim.Adam
) -> list[float]:
    """Put back what `_state` gave; the losses so far, one a step."""
    import torch

    tensors, about = kept
    with torch.no_grad():
        values.copy_(tensors["values"])
    moments = {moment: tensors[moment].to(values.device) for moment in _MOMENTS}
    adam.state[values] = {"step": torch.tensor(float(len(about["losses"]))), **moments}
    return list(about["losses"])


def _told(
    coefficients: Mapping[str, Coefficients],
    values: torch.Tensor,
    start: torch.Tensor,
    sizes: list[int],
    losses: list[float],
) -> list[dict[str, Any]]:
    rows = []
    for (name, own), part in zip(coefficients.items(), values.split(sizes) if sizes else (), strict=True):
        for stat, where in own.told.items():
            if len(part[where]):
                rows.append({"module": name, "stat": stat, "value": float(part[where].mean())})
    moved = float((values - start).square().mean().sqrt()) if len(start) else 0.0
    pooled = {"fitted": float(len(start)), "steps": float(len(losses)), "moved": moved}
    if losses:
        pooled |= {"loss_first": losses[0], "loss_last": losses[-1]}
    return rows + [{"module": "", "stat": stat, "value": value} for stat, value in pooled.items()]
