"""Modules that an adapter has trained whole as what they are to a merge: a ΔW = W′ − W of full rank.

``modules_to_save`` of PEFT's are weights, not updates. With the base beside them they are a task vector (Ilharco et al.
2023, arXiv 2212.04089) like any other, which every method merges; what is written of it is a whole weight again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sstmerge_core.adapters.adapted import AdaptedModule, Tensors
from sstmerge_core.adapters.base_weights import base_weights
from sstmerge_core.adapters.check import as_modules, read_base
from sstmerge_core.adapters.names import canonical, trained
from sstmerge_core.adapters.read import Adapter
from sstmerge_core.adapters.safetensors_header import TensorHeader
from sstmerge_core.adapters.safetensors_writer import CODES, NAMES
from sstmerge_core.adapters.saved import Saved
from sstmerge_core.adapters.write import check_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainedWhole(AdaptedModule):
    """ΔW = W′ − W of a module that was trained whole, (out, in); its factors are exact: one of the two is I."""

    tensor: Saved = field(kw_only=True)
    base: Path = field(kw_only=True)
    module: str = field(kw_only=True)
    is_transposed: bool = field(kw_only=True)
    """Whether the weight lies as (in, out), as an embedding's does"""

    def factors(self, file: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """A (r, in) and B (out, r) in float32, r = min(out, in)."""
        import torch

        own = self.tensor.load().float()
        delta = (own.T if self.is_transposed else own) - base_weights(str(self.base))(self.module)
        one = torch.eye(self.rank)
        return (one, delta) if self.in_features <= self.out_features else (delta, one)


@dataclass(frozen=True)
class Remade:
    """A weight that is written whole: W + ΔW, in the format that `header` says."""

    header: TensorHeader
    make: Callable[[], torch.Tensor]
    """float32, as the weight lies in the base"""

    name: str = ""
    """Of its module"""

    def load(self) -> torch.Tensor:
        """The weight as it is written. Raises AdapterError where a value is not finite in that format."""
        import torch

        target = NAMES[self.header.dtype]
        found = self.make().to(getattr(torch, target)).contiguous()
        check_finite(self.name, found, target)
        return found


def with_whole(adapter: Adapter, base: Path) -> Adapter:
    """The adapter with its fully trained modules among `modules`, and none in `saved`; itself where it has none.

    Raises AdapterError as `check.as_modules` does.
    """
    if not adapter.saved:
        return adapter
    model = read_base(base)
    tensors = {canonical(name.removesuffix(".weight")): one for name, one in adapter.saved.items()}
    found = {
        name: TrainedWhole(
            **{one.name: getattr(module, one.name) for one in fields(module)},
            tensor=tensors[name],
            base=model.path,
            module=name,
            is_transposed=model.is_transposed(name),
        )
        for name, module in as_modules(adapter, model).items()
    }
    return replace(adapter, modules={**adapter.modules, **found}, saved={})


def whole_modules(adapters: Iterable[Adapter]) -> set[str]:
    """The modules that one of them has trained whole, see `with_whole`."""
    return {name for one in adapters for name, module in one.modules.items() if isinstance(module, TrainedWhole)}


def without(adapters: Sequence[Adapter], modules: set[str]) -> list[Adapter]:
    """The adapters without these modules."""
    return [
        replace(one, modules={name: module for name, module in one.modules.items() if name not in modules})
        for one in adapters
    ]


def remade(
    adapters: Sequence[Adapter], deltas: Mapping[str, Callable[[], torch.Tensor]], dtype: str
) -> dict[str, Remade]:
    """W + ΔW of every module that one of the adapters has trained whole, by the weight's name in the base.

    `deltas` gives the merged ΔW (out, in); `dtype` is what is written, ``auto`` as it was trained.
    """
    found: dict[str, Remade] = {}
    for adapter in adapters:
        for name, module in adapter.modules.items():
            if isinstance(module, TrainedWhole):
                header = module.tensor.header
                header = header if dtype == "auto" else replace(header, dtype=CODES[dtype])
                found.setdefault(trained(module.tensor.key), Remade(header, _sum(module, deltas[name]), name))
    return found


def _sum(module: TrainedWhole, delta: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def make() -> torch.Tensor:
        found = base_weights(str(module.base))(module.module) + delta().cpu()
        return found.T if module.is_transposed else found

    return make
