"""Per-sample gradients in core coordinates by hooks: one forward and one backward pass for all samples of a batch.

For a linear module, ``g = Q_outᵀ (Σ_t δ_t x_tᵀ) Q_in = Σ_t (Q_outᵀ δ_t)(Q_inᵀ x_t)ᵀ``: a forward hook keeps x Q_in, a
backward hook on the output computes the rest. No out × in gradient ever exists. Source: ALGORITHMS §3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sstmerge_core.supervised import collate, encode, sample_losses

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import CoreModule, CoreSpace


@dataclass(frozen=True)
class Gradients:
    """Per-sample gradients of the mean loss per response token."""

    modules: dict[str, torch.Tensor]
    """By module, (n, p, q) float32, rows in the order of the samples"""
    tokens: torch.Tensor
    """Response tokens of each sample, (n,) float32"""

    def __len__(self) -> int:
        return len(self.tokens)


def core_gradients(
    model: Any,
    tokenizer: Any,
    space: CoreSpace,
    rows: Sequence[tuple[str, str]],
    *,
    max_length: int = 256,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Gradients:
    """Gradients of `rows` (prompt, response) at the model's present weights, on its device.

    Memory: n·Σpq floats for the result, plus one batch's activations.
    """
    import torch

    device = next(model.parameters()).device
    encoded = [encode(tokenizer, prompt, response, max_length) for prompt, response in rows]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # similar lengths together: less padding
    order = sorted(range(len(rows)), key=lambda index: (len(encoded[index][0]), index))
    result = {
        name: torch.empty(len(rows), module.q_out.shape[1], module.q_in.shape[1]) for name, module in space.items()
    }
    tokens = torch.empty(len(rows))
    with _recording(model, space) as recorded:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = collate([encoded[index] for index in chosen], pad_id).to(device)
            losses, counts = sample_losses(model, batch)
            losses.sum().backward()  # samples do not see each other, so each one's gradient stays its own
            for name, gradient in recorded.items():
                result[name][chosen] = gradient.float().cpu()
            tokens[chosen] = counts.float().cpu()
            recorded.clear()
            progress(min(start + batch_size, len(order)), len(order))
    return Gradients(result, tokens)


@contextmanager
def _recording(model: Any, space: Mapping[str, CoreModule]) -> Iterator[dict[str, torch.Tensor]]:
    """Hooks that put each module's (b, p, q) gradients into the yielded dict at every backward pass."""
    import torch

    recorded: dict[str, torch.Tensor] = {}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training = model.training
    handles = [model.get_input_embeddings().register_forward_hook(_require_grad)]
    for name, module in space.items():
        handles.append(model.get_submodule(name).register_forward_hook(_hook(name, module, model, recorded)))
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield recorded
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
        model.train(was_training)


def _require_grad(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_()


def _hook(name: str, module: CoreModule, model: Any, recorded: dict[str, torch.Tensor]) -> Callable[..., None]:
    parameter = next(model.get_submodule(name).parameters())
    q_out = module.q_out.to(parameter.device, parameter.dtype)
    q_in = module.q_in.to(parameter.device, parameter.dtype)

    def forward(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x_core = inputs[0].detach() @ q_in  # (b, t, q)

        def backward(gradient: torch.Tensor) -> None:
            recorded[name] = (gradient @ q_out).transpose(1, 2) @ x_core  # (b, p, t) @ (b, t, q)

        output.register_hook(backward)

    return forward
