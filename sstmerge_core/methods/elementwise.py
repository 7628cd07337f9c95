"""Element-wise methods: sparsify → elect a sign → combine, on one module's tensors at a time.

TIES, DARE and DELLA are the same composition with different parts, as in mergekit's generalised task arithmetic. Every
function receives one tensor per adapter (utility experts first, safety last), their weights, and one random generator
each, and returns the merged tensor; all float32 and of one shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.methods.registry import Choice, Real, method
from sstmerge_core.methods.shared import SEED, SHARE, SPACE

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 17
"""Elements that are combined at a time: a few arrays of 256 KiB stay in a core's cache"""

Density = Annotated[float, Real(0.0, 1.0, 0.05, "Share of each tensor kept, by magnitude.", open_low=True)]
DropRate = Annotated[float, Real(0.0, 0.99, 0.05, "Drop rate: each element is dropped with probability p.")]
Flavour = Annotated[
    str,
    Choice(
        ("peft", "mergekit"),
        "peft: elect on the unweighted sum, divide by how many agree. mergekit: elect on the weighted sum, divide by "
        "the weight of those that agree.",
    ),
]


@method(
    "ties",
    title="TIES",
    kind="elementwise",
    axis="share",
    formula=r"\tau_i=\mathrm{trim}(\Delta_i),\quad \Delta W=\mathrm{mean}\{w_i\tau_i:\ \mathrm{sgn}\,\tau_i="
    r"\mathrm{sgn}\textstyle\sum_j\tau_j\}",
    paper="Yadav et al. 2023, TIES-Merging",
    url="https://arxiv.org/abs/2306.01708",
    driver=(SHARE, SPACE),
)
def ties(
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    generators: Sequence[torch.Generator],
    *,
    density: Density = 0.2,
    flavour: Flavour = "peft",
) -> torch.Tensor:
    """Trim each ΔW by magnitude, elect a sign per element, average what agrees with it."""
    return elect_and_combine([keep_largest(tensor, density) for tensor in tensors], weights, flavour)


@method(
    "dare_linear",
    title="DARE",
    kind="elementwise",
    axis="share",
    formula=r"\Delta W=(1-\alpha)\,\frac{m_U\odot\Delta U}{1-p}+\alpha\,\frac{m_S\odot\Delta S}{1-p},"
    r"\quad m\sim\mathrm{Bernoulli}(1-p)",
    paper="Yu et al. 2024, Language models are super Mario",
    url="https://arxiv.org/abs/2311.03099",
    driver=(SHARE, SEED, SPACE),
)
def dare_linear(
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    generators: Sequence[torch.Generator],
    *,
    p: DropRate = 0.5,
) -> torch.Tensor:
    """Drop elements at random, rescale the rest by 1/(1−p), average."""
    kept = [drop_and_rescale(tensor, p, generator) for tensor, generator in zip(tensors, generators, strict=True)]
    return weighted_sum(kept, weights)


@method(
    "dare_ties",
    title="DARE + TIES",
    kind="elementwise",
    axis="share",
    formula=r"\tau_i=\frac{m_i\odot\Delta_i}{1-p},\quad \Delta W=\mathrm{mean}\{w_i\tau_i:\ \mathrm{sgn}\,\tau_i="
    r"\mathrm{sgn}\textstyle\sum_j\tau_j\}",
    paper="Yu et al. 2024, Language models are super Mario",
    url="https://arxiv.org/abs/2311.03099",
    driver=(SHARE, SEED, SPACE),
)
def dare_ties(
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    generators: Sequence[torch.Generator],
    *,
    p: DropRate = 0.5,
    flavour: Flavour = "peft",
) -> torch.Tensor:
    """Drop elements at random and rescale as DARE, then elect a sign and average what agrees as TIES."""
    kept = [drop_and_rescale(tensor, p, generator) for tensor, generator in zip(tensors, generators, strict=True)]
    return elect_and_combine(kept, weights, flavour)


@method(
    "della",
    title="DELLA",
    kind="elementwise",
    axis="share",
    formula=r"\tau_i=\frac{m_i\odot\Delta_i}{p_i},\quad m\sim\mathrm{Bernoulli}(p_i),\quad p_i=\rho-\epsilon+"
    r"2\epsilon\,\frac{\mathrm{rank}-1}{n-1},\quad \text{then as TIES}",
    paper="Deep et al. 2024, DELLA-Merging",
    url="https://arxiv.org/abs/2406.11617",
    driver=(SHARE, SEED, SPACE),
)
def della(
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    generators: Sequence[torch.Generator],
    *,
    density: Annotated[float, Real(0.0, 1.0, 0.05, "Mean share of elements kept.", open_low=True)] = 0.5,
    epsilon: Annotated[
        float, Real(0.0, 0.5, 0.05, "How much likelier the largest element of a row is kept than the mean one.")
    ] = 0.15,
    flavour: Flavour = "peft",
) -> torch.Tensor:
    """Drop elements at random, the smaller within their row the likelier, rescale, then elect a sign as TIES."""
    kept = [
        drop_by_rank(tensor, density, epsilon, generator) for tensor, generator in zip(tensors, generators, strict=True)
    ]
    return elect_and_combine(kept, weights, flavour)


def keep_largest(delta: torch.Tensor, density: float) -> torch.Tensor:
    """`delta` with all but the `int(density·numel)` entries of largest magnitude set to zero (TIES, “trim”).

    Raises RecipeError where that keeps nothing.
    """

    count = int(density * delta.numel())
    if count == 0:
        raise RecipeError(
            Problem("parameter density", f"{density:g} keeps none of {delta.numel()} elements", "Use a higher density.")
        )
    if count == delta.numel():
        return delta
    magnitudes = delta.abs()
    threshold = kth_largest(magnitudes, count)
    kept = magnitudes >= threshold
    surplus = int(kept.sum()) - count
    if surplus:  # equal magnitudes at the threshold: the last of them in memory order go
        equal = (magnitudes == threshold).view(-1).nonzero().view(-1)
        kept.view(-1)[equal[len(equal) - surplus :]] = False
    return magnitudes.copy_(delta).mul_(kept)


def kth_largest(magnitudes: torch.Tensor, k: int) -> float:
    """The k-th largest entry. Selecting one value is several times faster than finding the k largest indices."""
    if magnitudes.is_cuda:
        return float(magnitudes.view(-1).topk(k, sorted=False).values.min())
    import numpy

    place = magnitudes.numel() - k
    return float(numpy.partition(magnitudes.view(-1).numpy(), place)[place])


def drop_and_rescale(delta: torch.Tensor, p: float, generator: torch.Generator) -> torch.Tensor:
    """Bernoulli(1−p) mask on `delta`, divided by 1−p (DARE, eq. 1–2). The generator is drawn from on the CPU."""
    import torch

    if p == 0.0:
        return delta
    mask = torch.empty(delta.shape, dtype=torch.float32).bernoulli_(1.0 - p, generator=generator)
    return mask.to(delta.device).mul_(delta).div_(1.0 - p)


def keep_probabilities(delta: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
    """Probability of keeping each element: density ∓ ε from the smallest to the largest magnitude of its row.

    DELLA, eq. 2–4 (MagPrune). Raises RecipeError where a probability would leave (0, 1].
    """
    import torch

    if density - epsilon <= 0 or density + epsilon > 1:
        fault = f"{epsilon:g} leads to probabilities between {density - epsilon:g} and {density + epsilon:g}"
        raise RecipeError(Problem("parameter epsilon", fault, "Keep density ± epsilon within 0 and 1."))
    width = delta.shape[-1]
    ranks = delta.abs().argsort(dim=-1, stable=True).argsort(dim=-1).to(torch.float32)
    return density - epsilon + 2 * epsilon * (ranks / max(1, width - 1))


def drop_by_rank(delta: torch.Tensor, density: float, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """Bernoulli mask with `keep_probabilities`, each kept element divided by its own (DELLA, “Drop” and “Rescale”)."""
    import torch

    if density == 1.0 and epsilon == 0.0:
        return delta
    probabilities = keep_probabilities(delta, density, epsilon)
    uniform = torch.empty(delta.shape, dtype=torch.float32).uniform_(generator=generator).to(delta.device)
    return torch.where(uniform < probabilities, delta / probabilities, 0.0)


def weighted_sum(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Σ w_i τ_i."""
    total = weights[0] * tensors[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += weight * tensor
    return total


def elect_and_combine(tensors: Sequence[torch.Tensor], weights: Sequence[float], flavour: str) -> torch.Tensor:
    """TIES' “elect” and “disjoint merge” in the flavour of PEFT or of mergekit.

    Goes through the tensors in blocks that fit a processor's cache: the work is bound by memory, not by arithmetic.
    """
    import torch

    merged = torch.empty_like(tensors[0])
    flat, parts = merged.view(-1), [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, len(flat), BLOCK):
        block = [part[start : start + BLOCK] for part in parts]
        if flavour == "peft":
            found = combine_agreeing(block, weights, elect_sign(block), divide_by="count")
        else:
            weighted = [weight * part for weight, part in zip(weights, block, strict=True)]
            found = combine_agreeing(block, weights, elect_sign(weighted), divide_by="weight")
        flat[start : start + BLOCK] = found
    return merged


def elect_sign(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """True per element where the sum is not negative: zero counts as + (TIES, “elect”)."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total >= 0


def combine_agreeing(
    tensors: Sequence[torch.Tensor], weights: Sequence[float], positive: torch.Tensor, divide_by: str
) -> torch.Tensor:
    """Weighted mean over the tensors whose element has the elected sign (TIES, “disjoint merge”).

    `divide_by` is ``count`` (number of agreeing tensors, PEFT) or ``weight`` (sum of their weights, mergekit).
    """
    import torch

    numerator, denominator = torch.zeros_like(tensors[0]), torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        agrees = torch.where(positive, tensor > 0, tensor < 0)
        numerator.add_(tensor * agrees, alpha=weight)
        denominator.add_(agrees, alpha=1.0 if divide_by == "count" else weight)
    if divide_by == "count":
        return numerator.div_(denominator.clamp_(min=1.0))
    # nothing agrees: 0/1
    return numerator.div_(denominator.masked_fill_(denominator.abs() < 1e-8, 1.0))
