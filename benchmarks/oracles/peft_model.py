"""PEFT's own merge on a real PeftModel that holds our adapters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.oracles.cases import Adapters, Dense, stream

Masks = Mapping[int, torch.Tensor]
"""By the address of the tensor to be pruned"""


def weighted_adapter(
    adapters: Adapters, weights: Sequence[float], kind: str, *, density: float = 1.0, seed: int | None = None
) -> Dense:
    """ΔW of `add_weighted_adapter`. Each adapter must be of one rank. `seed` puts our random masks in PEFT's place."""
    model = peft_model(adapters)
    names = [str(index) for index in range(len(adapters))]
    tuner = model.base_model
    layers = {name: tuner.model.get_submodule(name) for name in sorted(set().union(*adapters))}
    masks = {}
    if seed is not None:
        for module, layer in layers.items():
            for index, adapter in enumerate(names):
                for factor, held in (("A", layer.lora_A), ("B", layer.lora_B)):
                    if adapter in held:
                        weight = held[adapter].weight.data
                        generator = stream(seed, f"{module}/{factor}", index)
                        masks[weight.data_ptr()] = torch.empty(weight.shape).bernoulli_(density, generator=generator)
    with pruned_by(masks):
        tuner.add_weighted_adapter(names, list(weights), "merged", combination_type=kind, density=density)
    return {name: layer.get_delta_weight("merged").detach().double().numpy() for name, layer in layers.items()}


def peft_model(adapters: Adapters) -> Any:  # to torch's types every attribute of a module is a tensor or a module
    """A model of bare linear layers with every adapter loaded under its position's name."""
    from peft import LoraConfig, get_peft_model

    model = torch.nn.Module()
    for adapter in adapters:
        for name, own in adapter.items():
            *path, last = name.split(".")
            parent = model
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, torch.nn.Module())
                parent = getattr(parent, part)
            if not hasattr(parent, last):
                parent.add_module(last, torch.nn.Linear(own.a.shape[1], own.b.shape[0], bias=False))
    configs = []
    for adapter in adapters:
        own = next(iter(adapter.values()))
        rank = own.a.shape[0]
        configs.append(LoraConfig(r=rank, lora_alpha=round(own.scaling * rank), target_modules=list(adapter)))
    wrapped: Any = get_peft_model(model, configs[0], adapter_name="0")
    for index, config in enumerate(configs[1:], start=1):
        wrapped.add_adapter(str(index), config)
    for index, adapter in enumerate(adapters):
        for name, own in adapter.items():
            layer = wrapped.base_model.model.get_submodule(name)
            assert layer.scaling[str(index)] == own.scaling
            layer.lora_A[str(index)].weight.data.copy_(own.a)
            layer.lora_B[str(index)].weight.data.copy_(own.b)
    return wrapped


@contextmanager
def pruned_by(masks: Masks):
    """PEFT's random pruning, but of each tensor by the mask given for it."""
    from peft.utils import merge_utils

    original = merge_utils.random_pruning

    def random_pruning(tensor: torch.Tensor, density: float, rescale: bool) -> torch.Tensor:
        with patch.object(torch, "bernoulli", lambda like: masks[tensor.data_ptr()].to(like)):
            return original(tensor, density, rescale)

    with ExitStack() as stack:
        stack.enter_context(patch.object(merge_utils, "random_pruning", random_pruning))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # that a density of 1 prunes nothing is what p = 0 asks for
        yield
