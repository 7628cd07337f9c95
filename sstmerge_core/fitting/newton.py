"""Gauss–Newton passes over samples: each linearises their losses where the last one arrived. Resumable by the pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sstmerge_core.fisher import Gradients, gram
from sstmerge_core.fitting.fit import Fit
from sstmerge_core.fitting.kept import Checkpoint
from sstmerge_core.gevp import LeastSquares
from sstmerge_core.methods.weighting import mixed

if TYPE_CHECKING:
    import torch

    from sstmerge_core.methods import Method
    from sstmerge_core.space import CoreSpace

Cores = Mapping[str, "torch.Tensor"]
"""M (p, q) float32 by module"""
KINDS = ("harm", "refused", "near", "benign")
"""Harmful prompts and near misses refused, near misses helped with, utility samples"""


Losses = Mapping[str, "torch.Tensor"]
"""Of every sample by kind, (n,) float64 on the CPU; ``refused`` and ``near`` are the same prompts"""
GRADIENTS = 0.9
"""Share of a pass's time that its gradients take; the rest is for held-out samples"""


class Landscape(Protocol):
    """Losses of samples as functions of core matrices, nats per response token."""

    def gradients(self, cores: Cores, progress: Callable[[float], None]) -> tuple[dict[str, Gradients], Losses]:
        """Every sample's gradient in core coordinates, by kind, and its loss; `progress` is told shares of 1."""
        ...

    def losses(self, cores: Cores) -> Losses: ...

    def held(self, cores: Cores) -> float:
        """Loss of samples that are never fitted."""
        ...


def iterate(
    method: Method,
    parameters: Mapping[str, Any],
    space: CoreSpace,
    landscape: Landscape,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Fit:
    """ΔU + δ with δ from up to `passes` Gauss–Newton passes of `method`; that of the lowest held-out loss is taken.

    Targets are measured: of harmful samples the change that αΔS makes of their losses at ΔU, of near misses κ of its
    change of r − m, of utility samples none. A pass after which the held-out loss has not fallen is the last.
    `progress` is told passes done (and parts of one) of all, and may raise to stop: what was done by whole passes is
    in `checkpoint`. Memory: 4·n·d bytes for the rows X, twice while they are stacked (n = 224 samples of d = 53,760: 48
    MB), n² float64, and what one batch takes of the model. Statistics: ``fitted`` multipliers, one a row of X and pass
    that was taken, ``passes`` tried, ``held_first`` and ``held_last``, the held-out losses of ΔU and of the result.
    """
    import torch

    checkpoint = checkpoint or Checkpoint()
    total = parameters["passes"]
    utility = {name: mixed(own.cores[:-1], parameters["experts"]) for name, own in space.items()}
    state = _State.of(checkpoint.load(), utility) or _start(parameters, space, utility, landscape, checkpoint, progress)
    progress(state.passes, total)
    while state.passes < total and not state.ended:
        at = {name: core + state.delta[name] for name, core in utility.items()}
        found, losses = landscape.gradients(at, partial(_tell, progress, state.passes, total))
        rows = _rows(found, parameters["beta"])
        residual = state.target - (stacked(losses, parameters["beta"]) - state.before)
        step = method.function(LeastSquares(gram(rows, rows.shapes), residual), **method.own(parameters))
        moved = step.to(rows.rows) @ rows.rows
        delta = {name: core + moved[rows.blocks[name]].view(core.shape).to(core) for name, core in state.delta.items()}
        held = landscape.held({name: core + delta[name] for name, core in utility.items()})
        state = state.after(delta, held)
        checkpoint.save(*state.kept())
        progress(state.passes, total)
    best = {name: core + state.best[name] for name, core in utility.items()}
    taken = state.held.index(min(state.held))
    pooled = {"fitted": float(taken * len(state.target)), "passes": float(state.passes)}
    pooled |= {"held_first": state.held[0], "held_last": min(state.held)}
    told = [{"module": "", "stat": stat, "value": value} for stat, value in pooled.items()]
    told += [{"module": name, "stat": "norm_patch", "value": float(core.norm())} for name, core in state.best.items()]
    return Fit({name: core.to(torch.float32) for name, core in best.items()}, told)


def stacked(losses: Losses, beta: float) -> torch.Tensor:
    """As the rows of X are: h, r − m, βb."""
    import torch

    return torch.cat([losses["harm"], losses["refused"] - losses["near"], beta * losses["benign"]])


def _tell(progress: Callable[[float, float], None], passes: int, total: int, share: float) -> None:
    progress(passes + GRADIENTS * share, total)


class _State(NamedTuple):
    delta: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]
    before: torch.Tensor
    """Losses at ΔU, as the rows of X are"""
    target: torch.Tensor
    held: list[float]
    """Held-out loss of ΔU and after each pass"""

    @property
    def passes(self) -> int:
        return len(self.held) - 1

    @property
    def ended(self) -> bool:
        """Whether the last pass made the held-out loss no better than it had been."""
        return self.passes > 0 and self.held[-1] >= min(self.held[:-1])

    def after(self, delta: dict[str, torch.Tensor], held: float) -> _State:
        better = held < min(self.held)
        return self._replace(delta=delta, best=delta if better else self.best, held=[*self.held, held])

    def kept(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors = {"before": self.before, "target": self.target}
        for side, cores in (("delta", self.delta), ("best", self.best)):
            tensors |= {f"{side}/{name}": core.clone() for name, core in cores.items()}
        return tensors, {"held": self.held}

    @classmethod
    def of(cls, kept: tuple[dict[str, torch.Tensor], dict[str, Any]] | None, like: Cores) -> _State | None:
        """What was kept, on the devices of `like`."""
        if kept is None:
            return None
        tensors, about = kept
        sides = [
            {name: tensors[f"{side}/{name}"].to(core) for name, core in like.items()} for side in ("delta", "best")
        ]
        return cls(sides[0], sides[1], tensors["before"], tensors["target"], about["held"])


def _start(
    parameters: Mapping[str, Any],
    space: CoreSpace,
    utility: Cores,
    landscape: Landscape,
    checkpoint: Checkpoint,
    progress: Callable[[float, float], None],
) -> _State:
    """δ = 0, and what is asked for."""
    import torch

    progress(0, parameters["passes"])
    alpha, beta = parameters["alpha"], parameters["beta"]
    before = landscape.losses(utility)
    after = landscape.losses({name: core + alpha * space[name].cores[-1] for name, core in utility.items()})
    wanted = {name: after[name] - before[name] for name in KINDS}
    wanted |= {name: parameters["kappa"] * wanted[name] for name in ("refused", "near")}
    wanted["benign"] = torch.zeros_like(before["benign"])
    nothing = {name: torch.zeros_like(core) for name, core in utility.items()}
    state = _State(nothing, nothing, stacked(before, beta), stacked(wanted, beta), [landscape.held(utility)])
    checkpoint.save(*state.kept())
    return state


def _rows(found: Mapping[str, Gradients], beta: float) -> Gradients:
    """X = [h; r − m; βb], every row with the weight 1."""
    import torch

    own = {name: found[name].rows.to(found["harm"].rows.device) for name in KINDS}
    rows = torch.cat([own["harm"], own["refused"] - own["near"], beta * own["benign"]])
    tokens = torch.cat([found[name].tokens for name in ("harm", "refused", "benign")])
    return Gradients(rows, found["harm"].shapes, tokens, torch.ones(len(rows), dtype=torch.float64))
