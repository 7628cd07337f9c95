"""What a fit minimises: weighted mean losses of the samples' kinds, from minibatches that the step's number decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from sstmerge_core.fisher.gradients import Gradients, core_gradients, encode_rows, frozen, losses_by_batch, padding
from sstmerge_core.fitting.side_path import side_path
from sstmerge_core.models.decoding import within_positions
from sstmerge_core.models.supervised import Example, collate, sample_losses

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import CoreSpace

Cores = Mapping[str, "torch.Tensor"]
"""M (p, q) float32 by module"""
AT_ONCE = 8
"""Samples in one forward pass where no gradient is asked for"""


class Objective(Protocol):
    """A loss of core matrices, and its gradient."""

    def gradient(self, cores: Cores, step: int) -> tuple[float, dict[str, torch.Tensor]]:
        """The loss on the minibatch of `step`, and its derivative by every core matrix, (p, q) each.

        The same step has the same minibatch, whatever came before it.
        """
        ...


@dataclass(frozen=True)
class Part:
    """Samples of one kind."""

    examples: Sequence[Example]
    weight: float
    """Of their mean loss in the sum"""


class ModelObjective:
    """Σ over kinds of weight × mean loss of the responses, nats per response token, at base + ΔW.

    The model holds the base weights and is left as it was. Memory of a gradient: the activations of `batch` samples of
    one kind, and their logits; the kinds go through the model one after another.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        space: CoreSpace,
        parts: Mapping[str, Part],
        *,
        batch: int = 8,
        seed: int = 0,
        max_length: int = 256,
    ) -> None:
        self._model, self._space, self._batch, self._seed = model, space, batch, seed
        self._tokenizer, self._parts = tokenizer, dict(parts)
        self._max_length = within_positions(model, max_length)
        self._pad = padding(tokenizer)
        self._rows = {name: encode_rows(tokenizer, part.examples, self._max_length) for name, part in parts.items()}
        self._weights = {name: part.weight for name, part in parts.items()}

    def gradient(self, cores: Cores, step: int) -> tuple[float, dict[str, torch.Tensor]]:
        import torch

        leaves = {name: core.detach().requires_grad_() for name, core in cores.items()}
        total = 0.0
        with frozen(self._model), side_path(self._model, self._space, leaves):
            for name, rows in self._rows.items():
                weight = self._weights[name]
                if not weight:
                    continue
                chosen = [rows[index] for index in minibatch(len(rows), self._batch, step, f"{self._seed}/{name}")]
                batch = collate(chosen, self._pad).to(next(self._model.parameters()).device)
                loss = weight * sample_losses(self._model, batch)[0].mean()
                loss.backward()
                total += float(loss.detach())
        found = {name: leaf.grad for name, leaf in leaves.items()}
        return total, {name: torch.zeros_like(cores[name]) if own is None else own for name, own in found.items()}

    def losses(self, cores: Cores, tick: Callable[[], None] = lambda: None) -> dict[str, torch.Tensor]:
        """Loss of every sample by kind, (n,) float64 on the CPU in the given order; no gradient.

        `tick` is called after every batch and may raise to stop.
        """
        import torch

        found = {}
        with frozen(self._model), torch.no_grad(), side_path(self._model, self._space, cores):
            for name, rows in self._rows.items():
                found[name] = torch.zeros(len(rows), dtype=torch.float64)
                for chosen, own, _ in losses_by_batch(self._model, rows, self._pad, AT_ONCE):
                    found[name][chosen] = own.double().cpu()
                    tick()
        return found

    def gradients(
        self, cores: Cores, progress: Callable[[float], None] = lambda share: None
    ) -> tuple[dict[str, Gradients], dict[str, torch.Tensor]]:
        """Gradient in core coordinates and loss of every sample by kind, at base + ΔW; a Fisher pass of its own.

        `progress` is told the share of the samples that is done. Memory: see `core_gradients`.
        """
        import torch

        samples = sum(len(rows) for rows in self._rows.values())
        found, losses, done = {}, {}, 0
        with side_path(self._model, self._space, cores):
            for name, part in self._parts.items():
                losses[name] = torch.zeros(len(part.examples), dtype=torch.float64)
                found[name] = core_gradients(
                    self._model,
                    self._tokenizer,
                    self._space,
                    part.examples,
                    max_length=self._max_length,
                    progress=partial(_tell, progress, done, samples),
                    note_losses=partial(_note, losses[name]),
                )
                done += len(part.examples)
        return found, losses

    def loss(self, cores: Cores, tick: Callable[[], None] = lambda: None) -> float:
        """The objective over all samples; `tick` as of `losses`."""
        found = self.losses(cores, tick)
        return sum(self._weights[name] * float(own.mean()) for name, own in found.items() if len(own))


def _tell(progress: Callable[[float], None], before: int, samples: int, done: int, _: int) -> None:
    progress((before + done) / samples)


def _note(losses: torch.Tensor, chosen: list[int], found: torch.Tensor) -> None:
    losses[chosen] = found.double().cpu()


def minibatch(n: int, size: int, step: int, seed: str) -> list[int]:
    """Indices of the samples of `step`, 0…n−1: every one comes before any comes again, in a new order each time."""
    if size >= n:
        return list(range(n))
    places = range(step * size, (step + 1) * size)
    orders = {epoch: _order(n, f"{seed}/{epoch}") for epoch in {place // n for place in places}}
    return [orders[place // n][place % n] for place in places]


def _order(n: int, seed: str) -> list[int]:
    found = list(range(n))
    random.Random(seed).shuffle(found)
    return found
