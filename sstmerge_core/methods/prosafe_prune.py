"""ProSafePrune: of the merged weights what makes near misses look harmful, but not what harmless prompts need.

Chen et al., ICLR 2026. W ← (I − λΩ)W with Ω = (I − Π_s)Π_uΠ_p, Π the projectors on the leading left singular
directions of a module's outputs (mean over a prompt's tokens) on harmless (s), harmful (u) and near-miss prompts (p),
in the middle layers where the three kinds lie furthest apart. Read: the toolkit that refactors the authors' code
(github.com/SparkShieldLab/OverRefusalToolkit, `prune.py`, `build_basis.py`, `collect_activations.py`,
`analyze_layers.py`); the paper's text was not to be had beyond its abstract, reviews and summaries. As there: thin SVD
of outputs that are not centred, one rank for all three, the mean silhouette (Rousseeuw 1987) of a layer's modules, the
best layer of the middle 40 % and a window around it. Different, and stated: the model that is pruned is the merge, base
+ ΔU + αΔS, and its outputs are those that are looked at; only modules that an adapter changes are pruned; and the
layers are taken by the rule, where the toolkit has a person choose among its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.edits import Edit, Seen, layer_of
from sstmerge_core.methods.registry import Real, Whole, method
from sstmerge_core.methods.shared import EXPERTS, STRENGTH, WEIGHTS
from sstmerge_core.methods.weighting import added

if TYPE_CHECKING:
    import torch

ENDS = 0.3
"""Share of the layers at either end that is never pruned"""
OF = {"safe": "benign", "unsafe": "harm", "pseudo": "near"}
"""The paper's names of the three sets, and ours"""


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    what = f"{parameters['rank']} directions a module pruned by {parameters['lam']:g} in {parameters['window']} layers"
    return f"{added(parameters, experts)}; of the merged weights {what}"


@method(
    "prosafe_prune",
    title="ProSafePrune",
    family="Safety-aware",
    kind="edited",
    axis="strength",
    formula=r"W'=(I-\lambda\,\Omega)\,(W_0+\Delta U+\alpha\,\Delta S),\quad \Omega=(I-\Pi_s)\,\Pi_u\,\Pi_p,\quad "
    r"\Pi=U_rU_r^{\mathsf{T}}\ \text{of the outputs on harmless, harmful and near-miss prompts}",
    paper="Chen et al. 2026, ProSafePrune: Projected Safety Pruning for Mitigating Over-Refusal in LLMs",
    url="https://openreview.net/forum?id=QkHKaPfRAB",
    driver=(STRENGTH, EXPERTS, WEIGHTS),
    needs_base=True,
    needs_near=True,
    keeps_utility=False,
    acts=_acts,
    swept=(),
    contested={"lam": (0.5, 1.0), "rank": (4, 16)},
)
def prosafe_prune(
    seen: Seen,
    *,
    lam: Annotated[
        float, Real(0.0, 2.0, 0.1, "How much of Ω is pruned; 1 takes all of it out, 0 nothing.", symbol="λ")
    ] = 1.0,
    rank: Annotated[
        int, Whole(1, 256, 1, "Leading directions of each kind of prompts, at most their number.", symbol="r")
    ] = 8,
    window: Annotated[
        int,
        Whole(
            1,
            256,
            2,
            "Layers that are pruned: the one in the middle of the model that tells the three kinds "
            "of prompts apart best, and those around it.",
        ),
    ] = 5,
) -> dict[str, Edit]:
    """Prune the directions in which near misses look harmful out of the merged weights, in a few middle layers."""
    chosen = layers(seen.outputs, window)
    found = {}
    for name, own in seen.outputs.items():
        if layer_of(name) in chosen:
            safe, unsafe, pseudo = (leading(own[kind], rank) for kind in OF.values())
            kept = unsafe - safe @ (safe.T @ unsafe)  # (I − Π_s)U_u
            found[name] = Edit(-lam * kept, pseudo @ (pseudo.T @ unsafe))
    return found


def leading(outputs: torch.Tensor, rank: int) -> torch.Tensor:
    """The leading left singular directions (out, ≤ rank) of outputs (n, out), not centred; none where they are zero."""
    import torch

    left, values, _ = torch.linalg.svd(outputs.double().T, full_matrices=False)
    there = int((values > 1e-10 * values[:1].clamp(min=1e-30)).sum())
    return left[:, : min(rank, there)]


def layers(outputs: Mapping[str, Mapping[str, torch.Tensor]], window: int) -> Sequence[int]:
    """The layers that are pruned: the middle one of the greatest mean silhouette and half a window on either side."""
    numbers = sorted({number for name in outputs if (number := layer_of(name)) is not None})
    if not numbers:
        return []
    count = numbers[-1] + 1
    middle = [one for one in numbers if int(count * ENDS) <= one <= int(count * (1 - ENDS))] or numbers
    scores = {}
    for number in middle:
        own = [
            silhouette([group[kind] for kind in OF.values()])
            for name, group in outputs.items()
            if layer_of(name) == number
        ]
        scores[number] = sum(own) / len(own)
    best = max(middle, key=lambda number: scores[number])
    half = window // 2
    return [one for one in numbers if best - half <= one <= best + half]


def silhouette(groups: Sequence[torch.Tensor]) -> float:
    """Mean of (b − a)/max(a, b) over all points of `groups` (n, d), Euclidean (Rousseeuw 1987).

    a is a point's mean distance to the others of its group, b that to the nearest other group; a group of one point has
    0 for it.
    """
    import torch

    points = torch.cat(list(groups)).double()
    which = torch.cat([torch.full((len(group),), place) for place, group in enumerate(groups)])
    apart = torch.cdist(points, points)
    sums = torch.stack([apart[:, which == place].sum(1) for place in range(len(groups))], dim=1)
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64)
    own = sizes[which]
    inside = sums.gather(1, which[:, None])[:, 0] / (own - 1).clamp(min=1)
    others = (sums / sizes).scatter(1, which[:, None], torch.inf).min(1).values
    values = (others - inside) / torch.maximum(others, inside).clamp(min=1e-300)
    return float(torch.where(own > 1, values, 0.0).mean())
