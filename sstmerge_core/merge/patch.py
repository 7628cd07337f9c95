"""ΔU + α·δ: δ is chosen once, for all modules together or one by one, and α only scales it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.merge.core import canonical_view, from_cores
from sstmerge_core.merge.merged import Calibrated, Merged, Rows
from sstmerge_core.methods.weighting import mixed

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fisher import Gradients
    from sstmerge_core.gevp import Cost, Signs
    from sstmerge_core.methods import Method
    from sstmerge_core.space import CoreSpace

Cores = dict[str, "torch.Tensor"]
CHANGES = ("change_harm", "change_near", "change_utility")
"""Statistics of the mean losses that a signed patch is held to"""
REFINED = 3
"""Times a signed patch is corrected: what float32 products of gradients left missing, the next one makes up for"""
ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
MLP = re.compile(r"mlp|ffn|feed_forward|fc_in|fc_out", re.IGNORECASE)


@dataclass(frozen=True)
class Solved:
    """A patch before its strength is chosen: everything that a sweep over α does once. Memory: 2·d floats."""

    space: CoreSpace
    utility: Cores
    """ΔU, with what the method takes out of it"""
    delta: Cores
    costs: dict[str, Cost] = field(default_factory=dict)
    """Predicted benign cost by module, the whole merge under the empty name; empty without gradients"""
    budget: float | None = None
    spectra: dict[str, list[float]] = field(default_factory=dict)
    statistics: Rows = field(default_factory=list)

    def at(self, alpha: float | None) -> Merged:
        """The merge of strength `alpha`; None: a budget in nats decides. Raises RecipeError where none is given."""
        from sstmerge_core.gevp import largest_strength

        statistics = list(self.statistics)
        if alpha is None:
            if self.budget is None:
                fault = "a budget in ROUGE-L points is measured while a run is carried out"
                raise RecipeError(Problem("parameter unit=rouge_l", fault, "Give alpha, or use unit=nats."))
            alpha = largest_strength(self.costs[""], self.budget)
            statistics.append({"module": "", "stat": "alpha", "value": alpha})
        statistics += [
            {"module": name, "stat": "benign_cost", "value": cost.at(alpha)} for name, cost in self.costs.items()
        ]
        cores = {name: self.utility[name] + alpha * delta for name, delta in self.delta.items()}
        bases = {name: (module.q_out, module.q_in) for name, module in self.space.items()}
        return from_cores(cores, bases, spectra=self.spectra, statistics=statistics)


def solve_patch(method: Method, parameters: Mapping[str, Any], calibrated: Calibrated) -> Solved:
    """δ in the dual of the samples. Float32 gradients, float64 problem."""
    from sstmerge_core.fisher import dual_problem, primal, project

    space, harm, benign = calibrated.space, calibrated.harm, calibrated.benign
    layerwise = parameters.get("layerwise", False)
    utility, phi = _sides(space, parameters)
    delta: Cores = {}
    spectra: dict[str, list[float]] = {}
    statistics: Rows = []
    budget, signs = None, None
    for group in [[name] for name in phi] if layerwise else [list(phi)]:
        problem = dual_problem(harm, benign, phi, parameters.get("rho", 0.1), group)
        before = sum((project(harm, name, utility[name]) for name in group), start=problem.h_phi * 0)
        problem = replace(problem, h_utility=before)
        patch = method.function(problem, **method.own(parameters))
        label = group[0] if layerwise else ""
        if "rho" in parameters:
            spectra[label] = problem.spectrum.eigenvalues.tolist()
        if patch.kept is not None:
            statistics.append({"module": label, "stat": "directions_kept", "value": float(patch.kept)})
        for name in group:
            delta[name] = module_weight(name, parameters) * primal(patch, harm, benign, phi[name], name)
            if patch.fixed is not None:
                once = replace(patch, phi=0.0, harm=patch.fixed, benign=patch.benign * 0)
                utility[name] = utility[name] + primal(once, harm, benign, phi[name], name)
        budget, signs = patch.budget, patch.signs
    if signs is not None:
        delta, told = signed(calibrated, phi, delta, signs)
        statistics += told
    costs, energies = _effects(calibrated, phi, delta)
    return Solved(space, utility, delta, costs, budget, spectra, statistics + energies)


def signed(calibrated: Calibrated, phi: Cores, patch: Cores, signs: Signs) -> tuple[Cores, Rows]:
    """`patch` corrected to Aᵀδ = t over all modules together, and what it does to each mean loss by first order.

    ``fitted`` are the three multipliers; ``change_harm``, ``change_near``, ``change_utility`` are Aᵀδ per unit of
    strength, in nats per token: of refusing harmful prompts, of refusing near misses over helping with them, and of
    the utility samples.
    """
    import torch

    from sstmerge_core.fisher import gram
    from sstmerge_core.gevp import Constraints

    assert calibrated.contrast is not None
    benign = calibrated.benign
    sides = (calibrated.harm.mean(), calibrated.contrast, benign.mean())
    columns = {name: torch.stack([side[name].to(patch[name]).double().reshape(-1) for side in sides]) for name in phi}

    def moved(update: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Aᵀ of an update."""
        parts = [(rows @ update[name].double().reshape(-1)).cpu() for name, rows in columns.items()]
        return torch.stack(parts).sum(0)

    aa = torch.stack([(rows @ rows.T).cpu() for rows in columns.values()]).sum(0)
    ba = torch.stack([_project_each(benign, name, rows) for name, rows in columns.items()]).sum(0)
    constraints = Constraints(aa, ba, gram(benign, phi))
    target = constraints.target(moved(patch), moved(phi), signs.kappa)
    delta = {name: core.double() for name, core in patch.items()}
    for _ in range(REFINED):
        y, z = constraints.correction(target - moved(delta), signs.tau)
        for name, rows in columns.items():
            own = benign.columns(benign.blocks[name]).to(rows)
            added = y.to(rows) @ rows + (z * benign.weights.sqrt()).to(rows) @ own
            delta[name] = delta[name] + added.view(delta[name].shape)
    delta = {name: core.to(patch[name]) for name, core in delta.items()}
    told = {"fitted": float(len(target)), **dict(zip(CHANGES, moved(delta).tolist(), strict=True))}
    return delta, [{"module": "", "stat": stat, "value": value} for stat, value in told.items()]


def _project_each(gradients: Gradients, name: str, columns: torch.Tensor) -> torch.Tensor:
    """G_b A of one module, (n_b, 3), for A given by rows."""
    import torch

    from sstmerge_core.fisher import project

    return torch.stack([project(gradients, name, row) for row in columns], dim=1)


def solve_mask(
    method: Method, parameters: Mapping[str, Any], space: CoreSpace, calibrated: Calibrated | None
) -> Solved:
    """δ = m⊙φ in canonical core coordinates, the mask made over all modules together or over each alone."""
    utility, phi = _sides(space, parameters)
    views = {name: canonical_view(module, name, calibrated, parameters["experts"]) for name, module in space.items()}
    delta: Cores = {}
    statistics: Rows = []
    for group in [[name] for name in phi] if parameters["layerwise"] else [list(phi)]:
        mask = method.function(_flat([views[name][0] for name in group]), **method.own(parameters))
        parts = mask.split([phi[name].numel() for name in group])
        for name, part in zip(group, parts, strict=True):
            _, left, right = views[name]
            turned = part.view(phi[name].shape) * (left.T @ phi[name] @ right)
            delta[name] = module_weight(name, parameters) * (left @ turned @ right.T)
            if part.numel():  # no adapter changes the module: there is no mask
                statistics.append({"module": name, "stat": "mask_mean", "value": float(part.mean())})
    if calibrated is None:
        return Solved(space, utility, delta, statistics=statistics)
    costs, energies = _effects(calibrated, phi, delta)
    return Solved(space, utility, delta, costs, statistics=statistics + energies)


def module_weight(name: str, parameters: Mapping[str, Any]) -> float:
    """The factor that the user gives attention or MLP modules, by the module's name."""
    if ATTENTION.search(name):
        return parameters.get("attention", 1.0)
    return parameters.get("mlp", 1.0) if MLP.search(name) else 1.0


def _sides(space: CoreSpace, parameters: Mapping[str, Any]) -> tuple[Cores, Cores]:
    """ΔU and φ of every module as core matrices."""
    interpolate = parameters.get("mode") == "interpolate"
    utility, phi = {}, {}
    for name, module in space.items():
        utility[name] = mixed(module.cores[:-1], parameters["experts"])
        phi[name] = module.cores[-1] - utility[name] if interpolate else module.cores[-1]
    return utility, phi


def _flat(views: Sequence[Any]) -> Any:
    """Several modules' views as one flat vector each."""
    import torch

    from sstmerge_core.space import View

    def join(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([matrix.reshape(-1) for matrix in matrices])

    count = len(views[0].adapters)
    adapters = tuple(join([view.adapters[index] for view in views]) for index in range(count))
    harm = join([view.harm for view in views]) if views[0].harm is not None else None
    benign = join([view.benign for view in views]) if views[0].benign is not None else None
    return View(adapters, join([view.utility for view in views]), harm, benign)


def _effects(calibrated: Calibrated, phi: Cores, delta: Cores) -> tuple[dict[str, Cost], Rows]:
    """Predicted benign cost and kept harm energy δᵀF_hδ/φᵀF_hφ of the patch, per module and pooled."""
    import torch

    from sstmerge_core.fisher import project
    from sstmerge_core.gevp import Cost

    harm, benign = calibrated.harm, calibrated.benign
    costs: dict[str, Cost] = {}
    rows: Rows = []
    # what δ and φ do to each sample adds up over the modules
    kept = torch.zeros(len(harm), dtype=torch.float64)
    total, on_benign = kept.clone(), torch.zeros(len(benign), dtype=torch.float64)
    for name, patch in delta.items():
        on_harm, of_phi, b_delta = (
            project(harm, name, patch),
            project(harm, name, phi[name]),
            project(benign, name, patch),
        )
        costs[name] = Cost.of(b_delta, benign.tokens, benign.weights)
        rows.append({"module": name, "stat": "kept_harm_energy", "value": _ratio(on_harm, of_phi)})
        rows.append({"module": name, "stat": "norm_patch", "value": float(patch.norm())})
        kept, total, on_benign = kept + on_harm, total + of_phi, on_benign + b_delta
    costs[""] = Cost.of(on_benign, benign.tokens, benign.weights)
    rows.append({"module": "", "stat": "kept_harm_energy", "value": _ratio(kept, total)})
    return costs, rows


def _ratio(kept: torch.Tensor, total: torch.Tensor) -> float:
    energy = float(total.square().sum())
    return float(kept.square().sum()) / energy if energy else 0.0
