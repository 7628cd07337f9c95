"""The base model with ΔW = Q_out M Q_inᵀ beside its weights: differentiable in M alone, and no dense ΔW ever exists.

y = W₀x + Q_out M (Q_inᵀ x): the core coordinates of ALGORITHMS §2 as a path of its own, as LoRA computes BAx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.fisher.gradients import in_core
from sstmerge_core.models.experts import Listener, is_expert, listening
from sstmerge_core.models.modules import module_called, submodule
from sstmerge_core.models.placement import device_of

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import CoreModule


@contextmanager
def side_path(model: Any, space: Mapping[str, CoreModule], cores: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, every module of `cores` answers with ΔW added; `model` holds the base weights, and is as before after.

    `cores` are the matrices M, (p, q) by module, and a backward pass reaches them. Works on ``Linear``, ``Conv1D`` and
    token embeddings, of which ΔW is (width, vocabulary). Memory beside the activations: (p + q) numbers a token and
    module.
    """
    with ExitStack() as hooks:
        experts = {name: _beside(space[name], core) for name, core in cores.items() if core.numel() and is_expert(name)}
        hooks.enter_context(listening(partial(module_called, model), experts))
        for name, core in cores.items():
            if core.numel() and name not in experts:  # nothing changes here
                layer = submodule(model, name)
                hooks.enter_context(layer.register_forward_hook(_hook(space[name], core, layer)))
        yield


def _beside(module: CoreModule, core: torch.Tensor) -> Listener:
    """As `_hook`, for the matrix of an expert."""

    def listen(x: torch.Tensor, y: torch.Tensor, tokens: torch.Tensor, total: int) -> torch.Tensor:
        q_out, q_in = (side.to(x.device, x.dtype) for side in (module.q_out, module.q_in))
        return y + ((x @ q_in) @ core.to(x.device, x.dtype).T) @ q_out.T

    return listen


def _hook(module: CoreModule, core: torch.Tensor, layer: Any) -> Callable[..., torch.Tensor]:
    device, dtype = device_of(layer), layer.weight.dtype
    q_out, q_in = (side.to(device, dtype) for side in (module.q_out, module.q_in))
    inner = core.to(device, dtype).T

    def forward(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + ((in_core(layer, inputs[0].to(device), q_in) @ inner) @ q_out.T).to(output.device)

    return forward
