"""TIES and DARE with TIES on dense ΔW of Llama-3.1-8B's shapes, against mergekit's arithmetic on the same tensors.

    python -m benchmarks.elementwise [--times 3]

Time: the modules of one layer, one after another. Memory: what streaming these modules from factors (r = 16) adds to
the process at its peak, against 4 GB; one module is in memory at a time, so 32 layers take no more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.lines import Line, compared, parser, peak_growth, report, take_turns
from benchmarks.merge import RANK, SHAPES
from sstmerge_core.models.device import best_device, share_the_machine

ALPHA, DENSITY = 0.3, 0.2
FOUR_GB = 4_000_000_000
OPTIONS: dict[str, dict[str, Any]] = {
    "ties": {"density": DENSITY, "flavour": "mergekit"},
    "dare_ties": {"p": 1 - DENSITY, "flavour": "mergekit"},
}


def main() -> int:
    arguments = parser(__doc__).parse_args()
    share_the_machine()
    return report(figures(arguments.times))


def figures(times: int) -> Iterator[Line]:
    for method in OPTIONS:
        own = other = 0.0
        for shape in sorted(set(SHAPES.values())):
            count = sum(one == shape for one in SHAPES.values())
            ours, peer = take_turns(*sides(method, shape), times)
            own, other = own + count * ours, other + count * peer
        yield compared(f"{method} on ΔW of one 8B layer, against mergekit", own, other, 1.0)
        yield compared(f"{method} 8B streamed, memory", peak_growth(partial(stream, method)), FOUR_GB, 1.0, "bytes")


def sides(method: str, shape: tuple[int, int]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Ours and mergekit's on two dense updates of one module; (in, out) is `shape`."""
    import torch
    from mergekit.merge_methods.base import TensorGroup
    from mergekit.merge_methods.registry import get as mergekit_method

    from sstmerge_core import methods
    from sstmerge_core.methods.sparsify import Cut

    place = best_device()
    generator = torch.Generator(place).manual_seed(0)

    def update() -> torch.Tensor:
        a = torch.randn(RANK, shape[0], generator=generator, device=place)
        return torch.randn(shape[1], RANK, generator=generator, device=place) @ a

    tensors = [update(), update()]
    cuts = [Cut(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    weights = (1 - ALPHA, ALPHA)
    ours = methods.get(method).function
    group = TensorGroup.from_tensors([torch.zeros_like(tensors[0]), *tensors], base_index=0)
    ids = [entry.id for entry in group.non_base]
    settings = {
        "weight": dict(zip(ids, weights, strict=True)),
        "density": dict.fromkeys(ids, DENSITY),
        "normalize": True,
        "rescale": method == "dare_ties",
        "lambda": 1.0,
        "int8_mask": False,
    }
    theirs = mergekit_method(method).merge_group
    return lambda: ours(tensors, weights, cuts, **OPTIONS[method]), lambda: theirs(group, **settings)


def stream(method: str) -> None:
    """Every module's merged ΔW, made and let go."""
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.merge import merge

    def adapter() -> dict[str, Factors]:
        return {
            name: Factors(torch.randn(RANK, width), torch.randn(height, RANK), 2.0)
            for name, (width, height) in SHAPES.items()
        }

    merged = merge([adapter(), adapter()], method, {"alpha": ALPHA} | OPTIONS[method])
    for module in merged.modules.values():
        module.delta()


if __name__ == "__main__":
    sys.exit(main())
