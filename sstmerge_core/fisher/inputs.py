"""What every module sees of samples: second moments of its inputs in core coordinates, by forward passes alone.

ΔW = Q_out M Q_inᵀ sees of an input x only Q_inᵀx, so that ‖ΔW X‖² = ‖M Q_inᵀX‖² exactly: q × q numbers a module say all
that a method needs to know of X, where the paper's XXᵀ has in × in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.fisher.forward import forward
from sstmerge_core.fisher.gradients import by_sample, encode_rows, in_core
from sstmerge_core.models.decoding import within_positions
from sstmerge_core.models.supervised import Example
from sstmerge_core.workspace import is_whole, new_folder, seal, write_json

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import CoreModule

FILE = "inputs.safetensors"


def core_inputs(
    model: Any,
    tokenizer: Any,
    space: Mapping[str, CoreModule],
    rows: Sequence[Example],
    *,
    max_length: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, torch.Tensor]:
    """E[Q_inᵀx xᵀQ_in] of each module of `space`, (q, q) float64 on the CPU: the mean over all tokens of all samples.

    Prompt and response both count, as in GuardSpace and Safe Delta; padding does not. `progress` is told (samples done,
    of all) before every batch and may raise to stop. Memory: the activations of one batch of `AT_ONCE` samples.
    """
    import torch

    encoded = encode_rows(tokenizer, rows, within_positions(model, max_length))
    found = {name: torch.zeros(module.q_in.shape[1], module.q_in.shape[1]).double() for name, module in space.items()}
    batch: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name, module in space.items():
            if module.q_in.shape[1]:
                layer = model.get_submodule(name)
                hooks.enter_context(layer.register_forward_hook(_hook(name, module, layer, found, batch)))
        forward(model, tokenizer, encoded, batch, progress)
    tokens = sum(len(ids) for ids, _ in encoded)
    progress(len(encoded), len(encoded))
    return {name: total / max(1, tokens) for name, total in found.items()}


def _hook(
    name: str, module: CoreModule, layer: Any, found: dict[str, torch.Tensor], batch: Mapping[str, Any]
) -> Callable[..., None]:
    weight = next(layer.parameters())
    q_in = module.q_in.to(weight.device, weight.dtype)

    def look(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        mask = batch["mask"]
        seen = by_sample(name, in_core(layer, inputs[0], q_in), mask.shape)
        # a module that sees only the last tokens, as the output embedding may, is told of those
        rows = seen[mask[:, -seen.shape[1] :].bool()].float()
        found[name] += (rows.T @ rows).double().cpu()

    return look


def save(folder: Path, found: Mapping[str, torch.Tensor], parts: Mapping[str, Any]) -> None:
    """Keep them whole or not at all; `parts` beside them for people."""
    from safetensors.torch import save_file

    with new_folder(folder) as temporary:
        save_file({name: own.contiguous() for name, own in found.items()}, temporary / FILE)
        write_json(temporary / "parts.json", dict(parts))
        seal(temporary)


def load(folder: Path) -> dict[str, torch.Tensor] | None:
    """What `save` kept; None where it is not there, or not as it was written."""
    if not is_whole(folder):
        return None
    from safetensors.torch import load_file

    return {name: own.clone() for name, own in sorted(load_file(folder / FILE).items())}
