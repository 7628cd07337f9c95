"""Base weights as the checkpoint's files hold them: read again when they are needed, so that no second copy is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters import read_base
from sstmerge_core.adapters.base_weights import read_places
from sstmerge_core.adapters.check import Place
from sstmerge_core.errors import DataError, Problem

if TYPE_CHECKING:
    import torch

Key = tuple[Place, ...]
"""The tensors in safetensors files that make a weight"""


@dataclass
class Checkpoint:
    """The weights of a model's modules, by file mapping.

    A module is only trusted to be in the files once its present weight was found equal to what they hold
    (`confirm`): some architectures are loaded under other names, or put together from several tensors.
    """

    keys: dict[str, Key]
    """Where each module's weight lies"""
    precision: torch.dtype
    """That of the loaded model: tensors of another one are read as the model was"""
    _states: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    _confirmed: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, folder: Path, modules: Mapping[str, Any], precision: torch.dtype) -> Checkpoint:
        """The files of `folder` for those of `modules` that they name with the same shape; none where they are odd."""
        try:
            base = read_base(folder)
        except DataError:
            return cls({}, precision)
        keys = {}
        for name, module in modules.items():
            found = base.places(name)
            rows, shape = sum(place.shape[0] for place in found), tuple(module.weight.shape)
            if found and (rows, *found[0].shape[1:]) == shape:
                keys[name] = found
        files = {place.file for places in keys.values() for place in places}
        return cls(keys, precision, {file: _state(file) for file in files})

    def confirm(self, name: str, weight: torch.Tensor) -> bool:
        """Whether the files hold the weight of module `name`; `weight` is the base's, in any format, on any device."""
        import torch

        if name not in self._confirmed:
            if name not in self.keys:
                return False
            if not torch.equal(self.read(name).to(weight.device, weight.dtype), weight):
                del self.keys[name]
                return False
            self._confirmed.add(name)
        return True

    def read(self, name: str) -> torch.Tensor:
        """The weight of a module on the CPU, in `precision`, as the checkpoint has it laid out.

        The mapping lasts as long as the tensor. Raises DataError where the file is another one by now.
        """
        for file in {place.file for place in self.keys[name]}:
            if _state(file) != self._states[file]:
                fault = "has changed while the model was in use"
                raise DataError(Problem(str(file), fault, "Start again: the model is then loaded as it is now."))
        return read_places(self.keys[name], dtype=self.precision)


def _state(file: Path) -> tuple[int, ...]:
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
