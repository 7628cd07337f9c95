"""Which weights matter to a task: the SNIP score |θ ⊙ ∇L| of every weight, and the weights that LED-Merging elects.

Source: Ma et al. 2025, LED-Merging (arXiv 2502.16770), eq. 1–2; the score is that of Lee et al. 2019, SNIP. Unlike the
Fisher pass this one is dense: a score per weight, no core coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.fisher.gradients import by_sample, encode_rows, frozen, losses_by_batch, padding
from sstmerge_core.models.decoding import within_positions
from sstmerge_core.models.modules import submodule
from sstmerge_core.workspace import is_whole, new_folder, seal, write_json

if TYPE_CHECKING:
    import torch

    from sstmerge_core.models.supervised import Example


def importance(
    model: Any,
    tokenizer: Any,
    names: Sequence[str],
    rows: Sequence[Example | tuple[str, str]],
    *,
    max_length: int = 256,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, torch.Tensor]:
    """Mean over `rows` of |θ ⊙ ∇L| of the modules `names` at the model's present weights, (out, in) float32 each.

    L is the mean negative log-likelihood per response token, as in the paper's code. For a token embedding the shape is
    (width, vocabulary), as of its ΔW. Memory: 4 bytes per weight of these modules, plus one sample's gradient of one
    module. Raises AdapterError for a module that sees other tokens than the batch has, or sees them twice.
    """
    done = 0
    encoded = encode_rows(tokenizer, rows, within_positions(model, max_length))
    with _scoring(model, names) as (scores, seen):
        for chosen, losses, _ in losses_by_batch(model, encoded, padding(tokenizer), batch_size):
            losses.sum().backward()
            seen.clear()
            done += len(chosen)
            progress(done, len(rows))
        weights = {name: _by_in(submodule(model, name)).detach().abs().float() for name in names}
        return {name: score.mul_(weights.pop(name)).div_(max(1, len(rows))) for name, score in scores.items()}


def most_important(scores: torch.Tensor, share: float) -> torch.Tensor:
    """True for the ⌊share·n⌋ largest of n `scores` and their equals; never for a score of zero."""
    count = math.floor(share * scores.numel() + 1e-9)
    if count == 0:
        return scores < 0
    threshold = scores.flatten().kthvalue(scores.numel() - count + 1).values
    return (scores >= threshold) & (scores > 0)


def elect(scores: Iterable[Mapping[str, torch.Tensor]], share: float) -> dict[str, torch.Tensor]:
    """The weights among the most important `share` of their matrix in each of `scores`: at the base, and tuned.

    Each is let go before the next is asked for.
    """
    elected: dict[str, torch.Tensor] = {}
    for found in scores:
        for name, own in found.items():
            mask = most_important(own, share)
            elected[name] = elected[name] & mask if name in elected else mask
        del found
    return elected


def save(folder: Path, elected: Mapping[str, torch.Tensor], parts: Mapping[str, Any]) -> None:
    """Keep elected weights as one bit each, whole or not at all; `parts` beside them for people."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    packed = {name: torch.from_numpy(np.packbits(mask.cpu().numpy())) for name, mask in elected.items()}
    shapes = {name: f"{mask.shape[0]} {mask.shape[1]}" for name, mask in elected.items()}
    with new_folder(folder) as temporary:
        save_file(packed, temporary / "elected.safetensors", metadata=shapes)
        write_json(temporary / "parts.json", dict(parts))
        seal(temporary)


def load(folder: Path) -> dict[str, torch.Tensor] | None:
    """What `save` kept, bool (out, in) by module on the CPU; None where that is not there, or not as it was written."""
    path = folder / "elected.safetensors"
    if not is_whole(folder):
        return None
    import numpy as np
    import torch
    from safetensors import safe_open

    found = {}
    with safe_open(path, "pt") as file:
        for name, shape in sorted(file.metadata().items()):
            rows, columns = map(int, shape.split())
            bits = np.unpackbits(file.get_tensor(name).numpy(), count=rows * columns).reshape(rows, columns)
            found[name] = torch.from_numpy(bits.astype(bool))
    return found


@contextmanager
def _scoring(model: Any, names: Sequence[str]) -> Iterator[tuple[dict[str, torch.Tensor], set[str]]]:
    """Hooks that add |∇L| of every sample into the first yielded dict; the second holds what this batch has passed."""
    import torch

    scores = {
        name: torch.zeros(_by_in(submodule(model, name)).shape, device=submodule(model, name).weight.device)
        for name in names
    }
    seen: set[str] = set()
    with frozen(model) as batch, ExitStack() as hooks:
        for name in names:
            hook = _hook(name, scores[name], batch, seen)
            hooks.enter_context(submodule(model, name).register_forward_hook(hook))
        yield scores, seen


def _hook(name: str, score: torch.Tensor, batch: Sequence[int], seen: set[str]) -> Callable[..., None]:
    import torch

    def forward(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if name in seen:
            fault = "is passed twice by every token, so a sample's gradient is not that of one pass"
            raise AdapterError(Problem(name, fault, "Use another method for adapters with this module."))
        seen.add(name)
        embedding = isinstance(layer, torch.nn.Embedding)
        x = inputs[0].detach() if embedding else by_sample(name, inputs[0].detach(), batch)
        scale = getattr(layer, "embed_scale", 1.0) if embedding else 1.0

        def backward(gradient: torch.Tensor) -> None:
            for tokens, delta in zip(x, by_sample(name, gradient, batch), strict=True):
                if not embedding:
                    score.add_((delta.T @ tokens).abs_())
                    continue
                used, places = tokens.unique(return_inverse=True)
                own = torch.zeros(len(used), delta.shape[1], device=delta.device).index_add(0, places, delta.float())
                score[:, used] += (own * scale).abs().T

        if not output.requires_grad:
            output.requires_grad_()
        output.register_hook(backward)

    return forward


def _by_in(layer: Any) -> torch.Tensor:
    """The weight as (out, in): Conv1D and embeddings keep it the other way round."""
    import torch

    if isinstance(layer, torch.nn.Embedding) or type(layer).__name__ == "Conv1D":
        return layer.weight.T
    return layer.weight
