"""An adapter's modules under the names that PEFT finds them by, and experts as the stacks that it adapts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sstmerge_core.adapters.adapted import EXPERT, STACKS
from sstmerge_core.adapters.names import canonical
from sstmerge_core.errors import AdapterError, Problem

if TYPE_CHECKING:
    import torch

Pair = tuple["torch.Tensor", "torch.Tensor"]
"""LoRA factors A (r, in) and B (out, r)"""


@dataclass(frozen=True)
class Lazy:
    """Factors of one module that are made when they are written, so that one module is in memory at a time."""

    rank: int
    in_features: int
    out_features: int
    make: Callable[[], Pair]
    """A (rank, in) in any format that holds it exactly, and B (out, rank) in float32"""


@dataclass(frozen=True)
class Spelling:
    """How PEFT has to find an adapter's modules in a base; of most bases nothing, since its names are theirs."""

    names: Mapping[str, str] = field(default_factory=dict)
    """In memory, by the name that adapters agree on; a name that is not here is its own"""
    experts: Mapping[str, int] = field(default_factory=dict)
    """How many experts a stack has, by the module that has it"""
    parameters: frozenset[str] = frozenset()
    """Modules of a class of their own, such as routers, of which PEFT adapts the weight (``target_parameters``)"""


PLAIN = Spelling()


@dataclass(frozen=True)
class Spelt:
    """What is written of an adapter, and what is read again."""

    factors: Mapping[str, Pair | Lazy]
    """By the name in the file"""
    modules: tuple[str, ...]
    """PEFT's ``target_modules``"""
    parameters: tuple[str, ...]
    """PEFT's ``target_parameters``"""
    names: frozenset[str]
    """The modules that the file has when it is read, by the names that adapters agree on"""


def spell(factors: Mapping[str, Pair | Lazy], spelling: Spelling, rank: int) -> Spelt:
    """The factors as PEFT keeps them, all of the same `rank` in stacks; experts that are left alone have zeros there.

    Raises AdapterError for experts that are no stack of the base.
    """
    found: dict[str, Pair | Lazy] = {}
    modules, parameters, names = [], [], set()
    stacks: dict[str, dict[str, dict[int, Pair | Lazy]]] = {}
    for name, pair in factors.items():
        own = spelling.names.get(name, name)
        if match := EXPERT.fullmatch(name):
            if match["stack"] not in spelling.experts:
                fault = f"is an expert that is no part of a stack of the base; PEFT cannot find {match['stack']}"
                raise AdapterError(Problem(name, fault, "Write it as a dense model."))
            stacks.setdefault(match["stack"], {}).setdefault(match["part"], {})[int(match["expert"])] = pair
            continue
        found[own] = pair
        names.add(canonical(name))
        if name in spelling.parameters:
            parameters.append(f"{own}.weight")
        else:
            modules.append(own)
    for stack, parts in stacks.items():
        own, count = spelling.names.get(stack, stack), spelling.experts[stack]
        ordered = [part for part in STACKS if part in parts]
        for depth, part in enumerate(reversed(ordered)):  # the first one is wrapped first, so that it is innermost
            found[own + ".base_layer" * depth] = _stack(parts[part], count, rank)
            parameters.append(f"{own}.{part}")
            names |= {f"{stack}.{expert}.{part}" for expert in range(count)}
    return Spelt(found, tuple(modules), tuple(sorted(parameters)), frozenset(names))


def _stack(experts: Mapping[int, Pair | Lazy], count: int, rank: int) -> Lazy:
    _, inner, out = shape(next(iter(experts.values())))
    return Lazy(rank * count, inner, out, partial(_stacked, experts, count, rank, inner, out))


def _stacked(experts: Mapping[int, Pair | Lazy], count: int, rank: int, inner: int, out: int) -> Pair:
    """PEFT's layout (ParamWrapper): A by expert, B by rank and then by expert."""
    import torch

    a, b = torch.zeros(count, rank, inner), torch.zeros(out, rank, count)
    for expert, pair in experts.items():
        left, right = pair.make() if isinstance(pair, Lazy) else pair
        a[expert, : len(left)] = left
        b[:, : right.shape[1], expert] = right
    return a.flatten(0, 1), b.flatten(1, 2)


def shape(pair: Pair | Lazy) -> tuple[int, int, int]:
    """(r, in, out)"""
    if isinstance(pair, Lazy):
        return pair.rank, pair.in_features, pair.out_features
    return pair[0].shape[0], pair[0].shape[1], pair[1].shape[0]
