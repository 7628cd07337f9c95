"""The result of a fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fit:
    """What was found for the merge, matrices by name, and what is told of how."""

    cores: dict[str, torch.Tensor]
    """M (p, q) float32 by module, in the coordinates of the adapters' core space; of methods of kind ``edited`` the two
    matrices of each edit, see `edited.edits_of`"""
    statistics: list[dict[str, Any]] = field(default_factory=list)
    """(module, stat, value); of the whole merge under the empty module name ``fitted``: how many numbers were"""
