"""How a tensor is made sparse: by magnitude, at random, or both. Pure functions tensor → tensor, float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sstmerge_core.errors import Problem, RecipeError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cut:
    """What one adapter's tensor is made sparse with, beside the method's parameters."""

    generator: torch.Generator
    """Its random stream, for this module of this adapter"""
    threshold: float | None = None
    """The magnitude from which elements are kept, where the density is one of all modules together"""


def keep_largest(delta: torch.Tensor, density: float) -> torch.Tensor:
    """`delta` with all but the `int(density·numel)` entries of largest magnitude set to zero (TIES, “trim”).

    Raises RecipeError where that keeps nothing.
    """
    count = kept_of(delta.numel(), density)
    if count == delta.numel():
        return delta
    import torch

    magnitudes = delta.abs()
    threshold = kth_largest(magnitudes, count, overwrite=True)
    kept = torch.abs(delta, out=magnitudes) >= threshold
    surplus = int(kept.sum()) - count
    if surplus:  # equal magnitudes at the threshold: the last of them in memory order go
        equal = (magnitudes == threshold).view(-1).nonzero().view(-1)
        kept.view(-1)[equal[len(equal) - surplus :]] = False
    return magnitudes.copy_(delta).mul_(kept)


def kept_of(elements: int, density: float) -> int:
    """How many of `elements` a density keeps. Raises RecipeError where it is none."""
    count = int(density * elements)
    if count == 0:
        fault = f"{density:g} keeps none of {elements} elements"
        raise RecipeError(Problem("parameter density", fault, "Use a higher density."))
    return count


def keep_from(delta: torch.Tensor, threshold: float) -> torch.Tensor:
    """`delta` with every entry of a magnitude below `threshold` set to zero."""
    magnitudes = delta.abs()
    kept = magnitudes >= threshold
    return magnitudes.copy_(delta).mul_(kept)


def keep_between(delta: torch.Tensor, density: float, beta: float) -> torch.Tensor:
    """`delta` without its `int(β·numel)` largest magnitudes and, of the rest, with the `int(density·numel)` largest.

    Breadcrumbs' mask with both tails cut (Davari & Belilovsky 2024): β of the largest and γ = 1 − density − β of the
    smallest go. Where density + β is more than 1 fewer of the largest go, so that the density is kept, as in mergekit,
    which calls β gamma. Raises RecipeError where that keeps nothing.
    """
    import torch

    size = delta.numel()
    count = kept_of(size, density)
    if count == size:
        return delta
    below = max(0, size - count - int(beta * size))
    order = delta.abs().reshape(-1).argsort(stable=True)
    mask = torch.zeros(size, dtype=delta.dtype, device=delta.device)
    mask[order[below : below + count]] = 1.0
    return delta * mask.view_as(delta)


def largest_over(tensors: Callable[[], Iterator[torch.Tensor]], density: float) -> float:
    """The magnitude from which a `density` of the elements of all `tensors` together are kept; one is held at a time.

    Exact, in two passes: magnitudes of float32 are in the order of their bits, so a count of the upper half of the bits
    and then of the lower half finds the k-th largest. Equal magnitudes are kept together. Raises RecipeError where that
    keeps nothing.
    """
    import torch

    def counted(bits_of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(1 << 16, dtype=torch.int64)
        for tensor in tensors():
            bits = tensor.abs().reshape(-1).view(torch.int32)
            total += torch.bincount(bits_of(bits), minlength=1 << 16).cpu()
        return total

    upper = counted(lambda bits: bits >> 16)
    rest = kept_of(int(upper.sum()), density)
    high, rest = _bucket_of(upper, rest)
    low, _ = _bucket_of(counted(lambda bits: (bits & 0xFFFF)[bits >> 16 == high]), rest)
    return float(torch.tensor([high << 16 | low], dtype=torch.int32).view(torch.float32))


def _bucket_of(counts: torch.Tensor, k: int) -> tuple[int, int]:
    """The bucket that holds the k-th largest, and which of its own, counted from its largest, that is."""
    from_above = counts.flip(0).cumsum(0)
    place = int((from_above < k).sum())
    above = int(from_above[place - 1]) if place else 0
    return len(counts) - 1 - place, k - above


def kth_largest(magnitudes: torch.Tensor, k: int, *, overwrite: bool = False) -> float:
    """The k-th largest entry. Selecting one value is several times faster than finding the k largest indices.

    With `overwrite` the entries are in another order afterwards, and no copy of them is made.
    """
    if magnitudes.is_cuda:
        return float(magnitudes.view(-1).topk(k, sorted=False).values.min())
    import numpy

    place = magnitudes.numel() - k
    array = magnitudes.view(-1).numpy()
    if not overwrite:
        return float(numpy.partition(array, place)[place])
    array.partition(place)
    return float(array[place])


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
