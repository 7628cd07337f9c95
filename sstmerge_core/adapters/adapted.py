"""One adapted module of an adapter's file, and how its factors are put together from the file's tensors.

Mostly that is two tensors. Experts of a mixture are the other case: transformers 5 keeps the experts of a layer as one
stack of matrices, gate and up in one, and PEFT adapts the stack (``target_parameters``); before, every expert had
modules of its own. Either way a module here is one matrix of one expert, ``…experts.3.gate_up_proj`` or
``…experts.3.down_proj``, so that old and new adapters merge with each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.names import Kind

if TYPE_CHECKING:
    import torch

EXPERT = re.compile(r"(?P<stack>.+\.experts)\.(?P<expert>\d+)\.(?P<part>gate_up_proj|gate_proj|up_proj|down_proj)")
"""The name of one expert's matrix"""
STACKS = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")
"""Parameters of a module of experts, in the order in which it has them and PEFT nests its wrappers around them"""


@dataclass(frozen=True)
class Piece:
    """Two tensors that are the factors of some rows of a module's ΔW, or hold those of one expert of a stack."""

    key_a: str
    key_b: str
    rank: int
    scaling: float
    rows: slice
    """Of ΔW, which it is about"""
    expert: int | None = None
    """PEFT's ParamWrapper: A (experts·r, in) by expert, B (out, r·experts) by rank, then by expert"""
    experts: int = 1


@dataclass(frozen=True)
class AdaptedModule:
    """One module that the adapter changes: ΔW = scaling · B A, of shape (out_features, in_features).

    For a token embedding `in_features` is the vocabulary and `out_features` the width: its weight is Wᵀ in this view.
    """

    rank: int
    in_features: int
    out_features: int
    scaling: float
    key_a: str
    key_b: str
    kind: Kind = "linear"
    pieces: tuple[Piece, ...] = ()
    """Where the two tensors are not its factors as they are"""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its tensors in the file."""
        return tuple(key for one in self.pieces for key in (one.key_a, one.key_b)) or (self.key_a, self.key_b)

    def factors(self, file: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """A (r, in) and B (out, r) in the file's format; those of several pieces beside each other."""
        import torch

        if not self.pieces:
            return file.get(self.key_a), file.get(self.key_b)
        parts = [_factors(one, file) for one in self.pieces]
        if len(parts) == 1 and parts[0][1].shape[0] == self.out_features:
            return parts[0]
        b = torch.zeros(self.out_features, self.rank)
        column = 0
        for one, (_, own) in zip(self.pieces, parts, strict=True):
            b[one.rows, column : column + one.rank] = own.float() * one.scaling
            column += one.rank
        return torch.cat([a for a, _ in parts]), b


def _factors(piece: Piece, file: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = file.get(piece.key_a), file.get(piece.key_b)
    if piece.expert is None:
        return a, b
    first = piece.expert * piece.rank
    return a[first : first + piece.rank].contiguous(), b[:, piece.expert :: piece.experts].contiguous()


class Tensors:
    """An opened safetensors file that remembers the last two tensors: every expert asks for those of its stack."""

    def __init__(self, file: Any):
        self._file = file
        self._last: dict[str, torch.Tensor] = {}

    def get(self, key: str) -> torch.Tensor:
        if key not in self._last:
            if len(self._last) > 1:
                self._last.clear()
            self._last[key] = self._file.get_tensor(key)
        return self._last[key]


def stacked(name: str, targets: Any) -> tuple[str, str] | None:
    """The module and the parameter of it that factors under the name of a wrapper of PEFT's are about.

    The wrappers around one module are nested, the first parameter innermost (``base_layer``). None for a module's own
    factors; the parameter is empty where the settings do not say which it is.
    """
    module, depth = name, 0
    while module.endswith(".base_layer"):
        module, depth = module.removesuffix(".base_layer"), depth + 1
    if not isinstance(targets, (list, tuple, set)):
        return None
    own = []
    for target in targets:
        head, _, parameter = str(target).rpartition(".")
        # PEFT takes a bare parameter's name for that of every module which has one
        of_it = module == head or module.endswith(f".{head}") if head else module.endswith(".experts")
        if parameter and of_it:
            own.append(parameter)
    if not own:
        return None
    order = [parameter for parameter in (*STACKS, "weight") if parameter in own]
    if len(set(own)) != len(order) or depth >= len(order):
        return module, ""
    return module, order[len(order) - 1 - depth]


def stack_of(module: AdaptedModule, name: str, rank: int, experts: int) -> dict[str, AdaptedModule]:
    """The modules of all experts of a stack; `module` has the whole tensors, `name` is that of the parameter."""
    stack, _, part = name.rpartition(".")
    found = {}
    for expert in range(experts):
        rows = slice(0, module.out_features)
        piece = Piece(module.key_a, module.key_b, rank, module.scaling, rows, expert, experts)
        found[f"{stack}.{expert}.{part}"] = replace(module, rank=rank, pieces=(piece,))
    return found


def joined(modules: Mapping[str, AdaptedModule]) -> dict[str, AdaptedModule]:
    """The modules, where those of an expert's gate and up are one: [gate; up], as transformers 5 puts them together.

    ΔW stays what it is: the factors stand beside each other, B block by block. An expert of which only one is adapted
    has zeros for the other.
    """
    found: dict[str, AdaptedModule] = {}
    halves: dict[str, dict[str, AdaptedModule]] = {}
    for name, module in modules.items():
        match = EXPERT.fullmatch(name)
        if match and match["part"] in ("gate_proj", "up_proj"):
            whole = f"{match['stack']}.{match['expert']}.gate_up_proj"
            halves.setdefault(whole, {})[match["part"]] = module
            found.setdefault(whole, module)  # keeps its place in the order
        else:
            found[name] = module
    return found | {whole: _whole(own) for whole, own in halves.items()}


def _whole(halves: Mapping[str, AdaptedModule]) -> AdaptedModule:
    first = next(iter(halves.values()))
    height = first.out_features
    pieces = tuple(
        Piece(own.key_a, own.key_b, own.rank, own.scaling, slice(start, start + height))
        for part, start in (("gate_proj", 0), ("up_proj", height))
        if (own := halves.get(part))
    )
    rank = sum(piece.rank for piece in pieces)
    return replace(first, rank=rank, out_features=2 * height, scaling=1.0, pieces=pieces)
