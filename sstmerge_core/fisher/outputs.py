"""What modules answer to prompts, by forward passes alone: one vector a prompt and module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sstmerge_core.fisher.forward import forward
from sstmerge_core.fisher.gradients import by_sample
from sstmerge_core.models.decoding import within_positions
from sstmerge_core.models.resident import chat_ids

if TYPE_CHECKING:
    import torch

RESIDUAL = ""
"""Name under which the residual stream after the last layer is given"""


def prompt_outputs(
    model: Any,
    tokenizer: Any,
    modules: Sequence[str],
    prompts: Sequence[str],
    *,
    last_token: bool = False,
    block: str = "",
    max_length: int = 256,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, torch.Tensor]:
    """Outputs of `modules` for each prompt as the chat template asks it, (n, out) float64 on the CPU.

    The mean over a prompt's tokens, or with `last_token` that of the last one, after which the answer begins. `block`
    is a module whose output is given too, as `RESIDUAL`: that of the last layer is the residual stream. Prompts longer
    than `max_length` lose their beginning. `tick` is called before every batch and may raise to stop. Memory: the
    activations of one batch, and what is given.
    """
    import torch

    most = within_positions(model, max_length)
    ids = [chat_ids(tokenizer, prompt)[-most:] for prompt in prompts]
    found: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    batch: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name in modules:
            own = model.get_submodule(name)
            hooks.enter_context(own.register_forward_hook(_hook(name, found, batch, last_token)))
        if block:
            found[RESIDUAL] = []
            own = model.get_submodule(block)
            hooks.enter_context(own.register_forward_hook(_hook(RESIDUAL, found, batch, last_token)))
        order = forward(model, tokenizer, [(one, 0) for one in ids], batch, lambda done, total: tick())
    back = torch.tensor(order).argsort() if order else torch.zeros(0, dtype=torch.long)
    return {name: torch.cat(parts)[back] if parts else torch.zeros(0, 0).double() for name, parts in found.items()}


def _hook(
    name: str, found: dict[str, list[torch.Tensor]], batch: Mapping[str, Any], last_token: bool
) -> Callable[..., None]:
    def look(layer: Any, inputs: Any, output: Any) -> None:
        import torch

        mask = batch["mask"]
        values = by_sample(name, output[0] if isinstance(output, tuple) else output, mask.shape).double()
        if last_token:
            places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask).where(mask.bool(), -1).amax(1)
            picked = values[torch.arange(len(values), device=values.device), places]
        else:
            weights = mask[:, :, None].to(values)
            picked = (values * weights).sum(1) / weights.sum(1).clamp(min=1)
        found[name].append(picked.cpu())

    return look
