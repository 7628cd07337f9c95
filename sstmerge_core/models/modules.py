"""The modules of a model in memory by the names that adapters agree on, one expert of a stack among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sstmerge_core.adapters.skeleton import called, stacks
from sstmerge_core.errors import AdapterError, Problem

if TYPE_CHECKING:
    import torch


class ExpertMatrix:
    """One matrix of a stack of experts, which has a weight as a module has; writing to it writes to the stack."""

    def __init__(self, experts: Any, part: str, index: int):
        self.experts, self.part, self.index = experts, part, index

    @property
    def weight(self) -> torch.Tensor:
        """(out, in) or, of some models, (in, out)."""
        return getattr(self.experts, self.part).data[self.index]

    @property
    def is_transposed(self) -> bool:
        """Whether PEFT takes the stack for (experts, in, out)."""
        return bool(getattr(self.experts, "is_transposed", False))


def matrices(model: Any) -> dict[str, Any]:
    """All that has a matrix for a weight, by the name that adapters agree on: modules, and experts one by one."""
    import torch

    found: dict[str, Any] = {}
    for name, module in called(model).items():
        weight = module._parameters.get("weight")
        if isinstance(weight, torch.nn.Parameter) and weight.dim() == 2:
            found[name] = module
    for name, module, part in stacks(model):
        for index in range(getattr(module, part).shape[0]):
            found[f"{name}.{index}.{part}"] = ExpertMatrix(module, part, index)
    return found


def takes_a_side_path(module: Any) -> bool:
    """Whether a module's answer is the product of its input and its weight, so that one beside it can be added.

    A router's is what it makes of that product, also where it is a kind of ``Linear`` (Llama 4).
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    usual = isinstance(module, (torch.nn.Linear, torch.nn.Embedding, Conv1D))
    return usual and not type(module).__name__.endswith("Router")


_CALLED: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def module_called(model: Any, name: str) -> Any:
    """The module of a model that adapters call `name`; None where it has none."""
    if model not in _CALLED:
        _CALLED[model] = called(model)
    return _CALLED[model].get(name)


def submodule(model: Any, name: str, *, seen_inside: bool = False) -> Any:
    """The module that adapters call `name`. Raises AdapterError where it has none, such as for an expert.

    With `seen_inside` also one that only has the product of its input and its weight among its answers, see `product`.
    """
    found = module_called(model, name)
    if found is not None and (takes_a_side_path(found) or seen_inside):
        return found
    parts = name.split(".")
    near = (module_called(model, ".".join(parts[:length])) for length in range(len(parts), 0, -1))
    kind = type(next((one for one in near if one is not None), model)).__name__
    fault = f"is of class {kind}, of which this method can take no gradient"
    raise AdapterError(Problem(name, fault, "Use a method that needs none, or adapters without this module."))


def product(name: str, layer: Any, x: torch.Tensor, output: Any) -> torch.Tensor:
    """The product of a module's input and its weight, where it gives that back among other things, as routers do.

    Gradients reach it there. Raises AdapterError where it is not among them.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return output
    expected = torch.nn.functional.linear(x.detach(), layer.weight.detach(), getattr(layer, "bias", None))
    expected = expected.reshape(-1, expected.shape[-1])
    for found in output:
        if not isinstance(found, torch.Tensor) or found.dtype != expected.dtype or found.numel() != expected.numel():
            continue
        if torch.allclose(found.detach().reshape(expected.shape), expected, rtol=1e-3, atol=1e-5):
            return found
    fault = f"is of class {type(layer).__name__}, of which this method can take no gradient"
    raise AdapterError(Problem(name, fault, "Use a method that needs none, or adapters without this module."))
