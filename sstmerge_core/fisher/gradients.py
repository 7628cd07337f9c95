"""Per-sample gradients in core coordinates by hooks: one forward and one backward pass for all samples of a batch.

For a linear module, ``g = Q_outᵀ (Σ_t δ_t x_tᵀ) Q_in = Σ_t (Q_outᵀ δ_t)(Q_inᵀ x_t)ᵀ``: a forward hook keeps x Q_in, a
backward hook on the output computes the rest. No out × in gradient ever exists. Source: ALGORITHMS §3. For a token
embedding x_t is one-hot, so Q_inᵀ x_t is a row of Q_in; the padding token is a token like any other here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.errors import AdapterError, Problem
from sstmerge_core.fisher.partial import Partial
from sstmerge_core.fisher.room import AT_ONCE, Footprint, Pass, plan, recomputing
from sstmerge_core.fisher.sampling import sample_responses
from sstmerge_core.models.decoding import within_positions
from sstmerge_core.models.device import free_memory, give_memory_back, is_out_of_memory
from sstmerge_core.models.experts import Listener, is_expert, listening
from sstmerge_core.models.modules import module_called, product, submodule
from sstmerge_core.models.placement import device_of
from sstmerge_core.models.supervised import Batch, Example, collate, encode, sample_losses

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import CoreModule, CoreSpace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gradients:
    """Per-sample gradients of the mean loss per response token, and the weight of each sample in the Fisher matrix.

    F = Σ_i w_i g_i g_iᵀ. One matrix of all modules, so that Gram matrices are a few large products. Memory: 4·n·d bytes
    (1,000 samples of 224 modules at p = q = 32: 0.92 GB) where they are not a mapping of the cache's file, of which the
    system keeps as much in memory as there is room for. What asks for all samples asks for a few columns at a time
    (`columns`), so that the whole matrix is never put together.
    """

    rows: torch.Tensor
    """(n, d) float32, samples in their given order; on the CPU or, where they fit, on the model's device. Of stacked
    gradients the first part's, see `below`"""
    shapes: dict[str, tuple[int, int]]
    """(p, q) of each module, in the order of the columns; d = Σ p·q"""
    tokens: torch.Tensor
    """Response tokens T_i of each sample, (n,) float32 on the CPU"""
    weights: torch.Tensor
    """w_i of each sample, (n,) float64 on the CPU; 1/n for a plain mean"""
    below: tuple[torch.Tensor, ...] = ()
    """Further rows on the same device, in their order, left where they lie: see `stack`"""

    @classmethod
    def of(cls, modules: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> Gradients:
        """The plain mean over samples whose gradients are given by module, (n, p, q) each."""
        import torch

        shapes = {name: (gradient.shape[1], gradient.shape[2]) for name, gradient in modules.items()}
        blocks = column_blocks(shapes)
        rows = torch.empty(len(tokens), _width(shapes))
        for name, gradient in modules.items():
            rows[:, blocks[name]] = gradient.flatten(1)
        return cls(rows, shapes, tokens, plain_mean(len(tokens)))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """The columns of each module."""
        return column_blocks(self.shapes)

    @cached_property
    def modules(self) -> dict[str, torch.Tensor]:
        """By module, (n, p, q): views, and copies of stacked gradients."""
        return {name: self.columns(self.blocks[name]).unflatten(1, shape) for name, shape in self.shapes.items()}

    def columns(self, block: slice) -> torch.Tensor:
        """These columns of all samples, (n, ·): a view, and a copy of stacked gradients."""
        import torch

        own = self.rows[:, block]
        return torch.cat([own, *(part[:, block] for part in self.below)]) if self.below else own

    def mean(self) -> dict[str, torch.Tensor]:
        """Σ w_i g_i by module, (p, q) float32 where the gradients are."""
        parts = (self.rows, *self.below)
        weights = self.weights.to(self.rows).split([len(part) for part in parts])
        total = weights[0] @ parts[0]
        for own, part in zip(weights[1:], parts[1:], strict=True):
            total += own @ part
        return {name: total[self.blocks[name]].view(shape) for name, shape in self.shapes.items()}

    def to(self, device: torch.device | str) -> Gradients:
        """The same with `rows` on `device` if they take at most half of what is free there, else on the CPU."""
        to = _place(device, len(self) * self.rows.shape[1])
        return replace(self, rows=self.rows.to(to), below=tuple(part.to(to) for part in self.below))


def stack(utility: Gradients, general: Gradients, weight: float) -> Gradients:
    """Gradients of F_utility + `weight`·F_general over the same modules: the samples of both, with their weights.

    Neither is copied: 4·n·d bytes less, and what is a mapping of a file stays one.
    """
    import torch

    if weight == 0.0:
        return utility
    return Gradients(
        utility.rows,
        utility.shapes,
        torch.cat([utility.tokens, general.tokens]),
        torch.cat([utility.weights, weight * general.weights]),
        (*utility.below, *(part.to(utility.rows.device) for part in (general.rows, *general.below))),
    )


def core_gradients(
    model: Any,
    tokenizer: Any,
    space: CoreSpace,
    rows: Sequence[Example | tuple[str, str]],
    *,
    seed: int | None = None,
    max_length: int = 256,
    batch_size: int = AT_ONCE,
    room: int | None = None,
    kept: Partial | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    note_losses: Callable[[list[int], torch.Tensor], None] = lambda chosen, losses: None,
) -> Gradients:
    """Gradients of `rows` (prompt, response) at the model's present weights, computed on its device.

    Without `seed` the loss is that of the given responses (empirical Fisher). With `seed` it is that of responses which
    the model itself samples at these weights (true Fisher), each of at most as many tokens as the given one has, see
    `sample_responses`. `note_losses` gets whose losses a batch has, and the losses.

    Memory: that of the result, which stays on the model's device if it takes at most half of what is free there, plus
    one batch's activations and gradients. The batches are those of `Pass`; `room` are the bytes that activations may
    take, by default half of what is free, and where memory runs out all the same the pass goes on with activations
    computed again, then with half of the batch, and logs that. `kept` holds the rows on disk, and those that it has
    already are not computed again; the result is read from there.
    """
    import torch

    device = next(model.parameters()).device
    max_length = within_positions(model, max_length)
    encoded = encode_rows(tokenizer, rows, max_length)
    pad_id = padding(tokenizer)
    if seed is not None:
        encoded = sample_responses(model, encoded, tokenizer.eos_token_id, pad_id, seed, max_length, batch_size)
    lengths = [len(ids) for ids, _ in encoded]
    footprint = Footprint.of(model)
    how = replace(plan(footprint, max(lengths, default=1), _room(device) if room is None else room), samples=batch_size)
    shapes = {name: (module.q_out.shape[1], module.q_in.shape[1]) for name, module in space.items()}
    width = _width(shapes)
    if kept is None:
        result = torch.empty(len(rows), width, device=_place(device, len(rows) * width))
        tokens = torch.empty(len(rows))
    else:
        kept.begin(len(rows), shapes, {"device": device.type, "batches": how.batches(lengths)})
    finished = kept.done if kept is not None else set()
    chosen = [[index for index in batch if index not in finished] for batch in how.batches(lengths)]
    done = len(finished)
    with _recording(model, space) as recorded:

        def one(batch: list[int], recompute: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return _one_batch(model, collate([encoded[index] for index in batch], pad_id), recorded, shapes, recompute)

        for batch, found, losses, counts in _within_memory([batch for batch in chosen if batch], one, how):
            note_losses(batch, losses)
            if kept is None:
                result[batch] = found.to(result.device)
                tokens[batch] = counts
            else:
                kept.write(batch, found, counts)
            done += len(batch)
            progress(done, len(rows))
    if kept is not None:
        result, tokens = kept.tensors()
    return Gradients(result, shapes, tokens, plain_mean(len(rows)))


Found = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]
"""Of a batch: gradients (b, d), losses (b,), response tokens (b,) on the CPU"""


def _one_batch(
    model: Any,
    batch: Batch,
    recorded: dict[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, int]],
    recompute: bool,
) -> Found:
    """One forward and one backward pass, of which hooks put each module's gradients into `recorded`."""
    import torch

    recorded.clear()
    blocks, device = column_blocks(shapes), next(model.parameters()).device
    with recomputing(model) if recompute else nullcontext():
        losses, counts = sample_losses(model, batch.to(device), pieces=True)
        losses.sum().backward()  # samples do not see each other, so each one's gradient stays its own
    # zero for a module that the loss does not depend on
    found = torch.zeros(len(counts), _width(shapes), device=device)
    for name, gradient in recorded.items():
        found[:, blocks[name]] = gradient.flatten(1).to(device)
    recorded.clear()
    return found, losses.detach(), counts.float().cpu()


def _within_memory(
    batches: Sequence[list[int]], one: Callable[[list[int], bool], Found], how: Pass
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Every batch with what `one` finds; where memory runs out, activations are computed again, then batches halved."""
    waiting, recompute, most = deque(batches), how.recompute, how.samples
    while waiting:
        chosen = waiting.popleft()
        if len(chosen) > most:
            waiting.appendleft(chosen[most:])
            chosen = chosen[:most]
        try:
            found = one(chosen, recompute)
        except Exception as error:
            if not is_out_of_memory(error) or (recompute and len(chosen) == 1):
                raise
        else:
            yield (chosen, *found)
            continue
        if recompute:
            most = len(chosen) // 2
            log.warning("Out of memory with %d samples at once; going on with %d.", len(chosen), most)
        else:
            recompute = True
            log.warning("Out of memory with %d samples at once; activations are computed again now.", len(chosen))
        waiting.appendleft(chosen)
        give_memory_back()


def _room(device: torch.device) -> int:
    return free_memory(str(device)) // 2


def column_blocks(shapes: Mapping[str, tuple[int, int]]) -> dict[str, slice]:
    """Columns of each module in the matrix that holds them side by side."""
    blocks, start = {}, 0
    for name, (p, q) in shapes.items():
        blocks[name] = slice(start, start + p * q)
        start += p * q
    return blocks


def _width(shapes: Mapping[str, tuple[int, int]]) -> int:
    return sum(p * q for p, q in shapes.values())


def plain_mean(n: int) -> torch.Tensor:
    import torch

    return torch.full((n,), 1.0 / max(1, n), dtype=torch.float64)


def _place(device: torch.device | str, numbers: int) -> torch.device:
    """`device`, or the CPU where `numbers` float32 would take more than half of the GPU's free memory."""
    import torch

    device = torch.device(device)
    if device.type == "mps":  # which has no float64, that sums of products are taken in
        return torch.device("cpu")
    if device.type == "cuda" and 4 * numbers > free_memory(str(device)) / 2:
        return torch.device("cpu")
    return device


def encode_rows(
    tokenizer: Any, rows: Sequence[Example | tuple[str, str]], max_length: int
) -> list[tuple[list[int], int]]:
    """Token ids of each (prompt, response), and how many of them are the prompt's."""
    examples = [Example(*row) for row in rows]
    return [encode(tokenizer, own.prompt, own.response, max_length, ended=own.ended) for own in examples]


def padding(tokenizer: Any) -> int:
    """The token that fills up a batch."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def losses_by_batch(
    model: Any, encoded: Sequence[tuple[list[int], int]], pad_id: int, batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """(which samples, their losses, their response tokens), similar lengths together for less padding."""
    device = next(model.parameters()).device
    for chosen in Pass(batch_size).batches([len(ids) for ids, _ in encoded]):
        batch = collate([encoded[index] for index in chosen], pad_id).to(device)
        yield chosen, *sample_losses(model, batch, pieces=True)


@contextmanager
def frozen(model: Any) -> Iterator[list[int]]:
    """Inside, backward passes end at the input embeddings and no weight gets a gradient; all is put back after.

    Yields [samples, tokens] of the present batch, filled in at every forward pass.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training = model.training
    batch: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(_start(batch))
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield batch
    finally:
        handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
        model.train(was_training)


@contextmanager
def _recording(model: Any, space: Mapping[str, CoreModule]) -> Iterator[dict[str, torch.Tensor]]:
    """Hooks that put each module's (b, p, q) gradients into the yielded dict at every backward pass."""
    recorded: dict[str, torch.Tensor] = {}
    with frozen(model) as batch, ExitStack() as hooks:
        experts = {name: _listener(name, one, batch, recorded) for name, one in space.items() if is_expert(name)}
        hooks.enter_context(listening(partial(module_called, model), experts))
        for name, module in space.items():
            if name not in experts:
                hook = _hook(name, module, model, batch, recorded)
                layer = submodule(model, name, seen_inside=True)
                hooks.enter_context(layer.register_forward_hook(hook))
        yield recorded


def _listener(name: str, module: CoreModule, batch: Sequence[int], recorded: dict[str, torch.Tensor]) -> Listener:
    """As `_hook`, for the matrix of an expert, which sees the tokens that were sent to it."""
    import torch

    def listen(x: torch.Tensor, y: torch.Tensor, tokens: torch.Tensor, total: int) -> torch.Tensor:
        samples, length = batch
        q_out, q_in = (side.to(x.device, x.dtype) for side in (module.q_out, module.q_in))
        x_core, owner = (x.detach() @ q_in).float(), tokens // length

        def backward(gradient: torch.Tensor) -> None:
            delta_core = (gradient @ q_out).float()
            found = torch.zeros(samples, delta_core.shape[1], x_core.shape[1], device=x.device)
            found.index_add_(0, owner, delta_core[:, :, None] * x_core[:, None, :])
            recorded[name] = recorded[name] + found if name in recorded else found

        if y.requires_grad:
            y.register_hook(backward)
        return y

    return listen


def _start(batch: list[int]) -> Callable[..., torch.Tensor]:
    """A hook on the input embedding: it notes the samples and tokens of the batch, and is where gradients end."""

    def forward(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        batch[:] = output.shape[:2]
        return output.requires_grad_()

    return forward


def _hook(
    name: str, module: CoreModule, model: Any, batch: Sequence[int], recorded: dict[str, torch.Tensor]
) -> Callable[..., None]:
    own = submodule(model, name, seen_inside=True)
    q_out, q_in = (side.to(device_of(own), own.weight.dtype) for side in (module.q_out, module.q_in))

    def forward(layer: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        output = product(name, layer, inputs[0], output)
        # float32 from here on: what the model's 16 bits leave of a token is summed up without being rounded again
        x_core = by_sample(name, in_core(layer, inputs[0].detach().to(q_in.device), q_in), batch).float()  # (b, t, q)

        def backward(gradient: torch.Tensor) -> None:
            delta_core = by_sample(name, gradient.to(q_out.device) @ q_out, batch).float()
            found = delta_core.transpose(1, 2) @ x_core  # (b, p, t) @ (b, t, q)
            recorded[name] = recorded[name] + found if name in recorded else found  # a layer may be passed twice

        if not output.requires_grad:
            output.requires_grad_()  # an embedding of positions
        output.register_hook(backward)

    return forward


def in_core(layer: Any, x: torch.Tensor, q_in: torch.Tensor) -> torch.Tensor:
    """Q_inᵀ x of each token, (…, q)."""
    import torch

    if not isinstance(layer, torch.nn.Embedding):
        return x @ q_in
    scale = getattr(layer, "embed_scale", None)  # Gemma's embedding multiplies its rows
    return q_in[x] if scale is None else q_in[x] * scale


def by_sample(name: str, values: torch.Tensor, batch: Sequence[int]) -> torch.Tensor:
    """(b, t, ·) of what a module saw, where it is also given as (b·t, ·). Raises AdapterError where it saw less."""
    samples, tokens = batch
    if values.dim() == 3 and values.shape[0] == samples:
        return values
    if values.dim() == 2 and values.shape[0] == samples * tokens:
        return values.unflatten(0, (samples, tokens))
    fault = f"sees {tuple(values.shape[:-1])} of {samples}×{tokens} tokens; its gradients belong to no one sample"
    raise AdapterError(Problem(name, fault, "Use a method that needs no Fisher pass, or adapters without this module."))
