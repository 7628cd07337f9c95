"""Which class of transformers' makes a model of a folder, and what its modules are called in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sstmerge_core.adapters.adapted import STACKS
from sstmerge_core.adapters.check import EXPERTS_KNOWN, read_base
from sstmerge_core.adapters.names import canonical
from sstmerge_core.adapters.spell import Spelling
from sstmerge_core.errors import DataError, Problem

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def model_class(config: Any) -> Any:
    """The automatic class that loads a model of `config` for text.

    A model of several modalities is loaded whole, since some have no text model of their own (Qwen2-VL and later), and
    since what is written of it must be whole.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    named = next(iter(getattr(config, "architectures", None) or ()), "")
    whole = type(config) in AutoModelForImageTextToText._model_mapping
    if whole and (type(config) not in AutoModelForCausalLM._model_mapping or not named.endswith("ForCausalLM")):
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def skeleton(base: Path) -> Any:
    """The model without weights: what its modules are called and of which kind they are. Raises DataError."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, **LOCAL)
        with torch.device("meta"):
            return model_class(config).from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(Problem(str(base), f"cannot be loaded: {reason}", "Give a causal language model.")) from error


def called(model: Any) -> dict[str, Any]:
    """The model's modules by the names that adapters agree on (`names.canonical`)."""
    return {canonical(name): module for name, module in model.named_modules()}


def in_memory(model: Any) -> dict[str, str]:
    """What transformers, and with it PEFT, calls a module in memory, by the name that adapters agree on."""
    return {canonical(name): name for name, _ in model.named_modules()}


def stacks(model: Any) -> Iterator[tuple[str, Any, str]]:
    """The stacks of experts of a model: the name of the module that has one, that module, and the parameter."""
    for name, module in called(model).items():
        own = dict(module.named_parameters(recurse=False))
        for part in STACKS:
            if part in own and own[part].dim() == 3:
                yield name, module, part


def spelling(base: Path) -> Spelling:
    """The spelling of the base in a folder; the model is only looked at where its kind may have one of its own."""
    found = read_base(base)
    stacked = any(len(tensor.shape) == 3 and ".experts." in name for name, (_, tensor) in found.weights.items())
    if not (found.several_modalities or stacked or found.model_type in EXPERTS_KNOWN):
        return Spelling()
    model = skeleton(base)
    names = {one: name for one, name in in_memory(model).items() if one != name}
    experts = {name: getattr(module, part).shape[0] for name, module, part in stacks(model)}
    return Spelling(names, experts, frozenset(_own_classes(model)))


def _own_classes(model: Any) -> Iterator[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, module in called(model).items():
        weight = module._parameters.get("weight")
        usual = isinstance(module, (torch.nn.Linear, torch.nn.Embedding, Conv1D))
        if weight is not None and weight.dim() == 2 and not usual:
            yield name
