"""A look at an adapter's weights for modules that changed far more than their like. Imports no torch.

Fine-tuning on one set of samples changes the query projections of all layers by amounts of one order, and so with every
other kind of module. One that stands out may have been put there: by hand, by a merge gone wrong, or as a back door
that sits in a few weights. A norm proves nothing, so it is a warning.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sstmerge_core.adapters.fingerprint import file_state
from sstmerge_core.adapters.places import WEIGHTS
from sstmerge_core.adapters.read import AdaptedModule, Adapter
from sstmerge_core.adapters.safetensors_header import TensorHeader, read_header, values
from sstmerge_core.errors import Problem

FEWEST = 6
"""Modules of one kind from which on one of them can stand out"""
SCORE = 8.0
"""Robust z-score of the logarithm of the norm from which on a module stands out"""
RATIO = 4.0
"""And how many times the usual norm it must be: where all others are alike, a small difference has a large score"""
LARGEST = 4 * 10**9
"""Bytes of weights up to which they are looked at unasked"""


@dataclass(frozen=True)
class Outlier:
    module: str
    norm: float
    """‖ΔW‖_F"""
    usual: float
    """The median of the modules of its kind"""

    @property
    def times(self) -> float:
        return self.norm / self.usual if self.usual else math.inf


def norms(adapter: Adapter) -> dict[str, float]:
    """‖ΔW‖_F of every linear module, by name: of ΔW = s·BA it is s·√tr((BᵀB)(AAᵀ)), so that ΔW is never made."""
    path = adapter.path / WEIGHTS
    tensors = read_header(path)
    return {name: _norm(path, tensors, module) for name, module in adapter.modules.items() if module.kind == "linear"}


def outliers(found: Mapping[str, float]) -> list[Outlier]:
    """The modules whose norm is far above that of their kind, the furthest first.

    A kind is what a module is called within its layer. The score is 0.6745·(x − median) / MAD of the logarithms
    (Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers, the modified z-score).
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name, norm in found.items():
        if norm > 0:
            kinds[".".join(part for part in name.split(".") if not part.isdecimal())].append(name)
    far = []
    for names in kinds.values():
        if len(names) < FEWEST:
            continue
        logs = {name: math.log(found[name]) for name in names}
        middle = statistics.median(logs.values())
        spread = statistics.median(abs(one - middle) for one in logs.values())
        for name, one in logs.items():
            score = 0.6745 * (one - middle) / spread if spread else math.inf
            if one - middle > math.log(RATIO) and score > SCORE:
                far.append(Outlier(name, found[name], math.exp(middle)))
    return sorted(far, key=lambda one: -one.times)


def doubts(adapter: Adapter, role: str = "") -> list[Problem]:
    """What is odd about an adapter's weights; nothing for one too large to be read unasked."""
    if adapter.bytes > LARGEST:
        return []
    far = _kept(adapter.path, file_state(adapter.path / WEIGHTS), _Held(adapter))
    if not far:
        return []
    first = far[0]
    more = f", and {len(far) - 1} more like it" if len(far) > 1 else ""
    fault = f"{first.module} changes {first.times:.0f} times as much as modules of its kind do{more}"
    fix = "Ask where it comes from; `sstmerge adapters probe` looks for words that switch its refusals off."
    return [Problem(f"{role} adapter" if role else f"adapter {adapter.name}", fault, fix)]


class _Held:
    """An adapter that does not count when answers are remembered."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=256)
def _kept(_path: Path, _state: str, held: _Held) -> tuple[Outlier, ...]:
    return tuple(outliers(norms(held.adapter)))


def _norm(path: Path, tensors: Mapping[str, TensorHeader], module: AdaptedModule) -> float:
    found = [values(path, tensors[key]) for key in (module.key_a, module.key_b)]
    if any(one is None or one.ndim != 2 for one in found):
        return 0.0  # in a format that cannot be read here: the module stands out in no way
    a, b = (np.asarray(one, np.float64) for one in found)
    return abs(module.scaling) * math.sqrt(max(0.0, float(np.sum((b.T @ b) * (a @ a.T)))))
