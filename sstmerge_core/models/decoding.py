"""Greedy decoding of a batch that shrinks as its rows finish.

Two savings over `model.generate`, with the same tokens as result (a test compares): the prompts' common beginning, a
chat template's system message, is computed once for the whole batch, and a row that has ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any


def positions(model: Any) -> int | None:
    """The longest sequence of tokens that a model has positions for; None where it says none."""
    config = getattr(model, "config", None)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) if config is not None else None
    return longest if isinstance(longest, int) and longest > 0 else None


def within_positions(model: Any, max_length: int) -> int:
    """`max_length` tokens, or as many as the model has positions for."""
    return min(max_length, positions(model) or max_length)


Tell = Callable[[int, int], None]
"""Hears how many answers of a batch have ended, and how many tokens the others have"""


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_ids: Collection[int],
    tell: Tell | None = None,
) -> list[list[int]]:
    """New tokens of every prompt, each up to `max_new_tokens`, its end-of-sequence token included if it came.

    `tell` is told after every token how many answers have ended and how many tokens the others have; what it raises
    ends this. `prompts` are token ids, not padded. The same batch gives the same bits on one machine; another split
    into batches may not, because matrix products of another shape round differently.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    for count, step in enumerate(islice(steps(model, prompts, eos_ids), max(0, max_new_tokens)), start=1):
        for row, token in step:
            answers[row].append(token)
        if tell is not None:
            tell(len(prompts) - sum(token not in eos_ids for _, token in step), count)
    return answers


def steps(
    model: Any,
    prompts: Sequence[Sequence[int]],
    eos_ids: Collection[int],
    choose: Callable[[Any], Any] | None = None,
    *,
    share_beginning: bool = True,
) -> Iterator[list[tuple[int, int]]]:
    """Yield (row, new token) of every row that has not ended, token by token and without end; see `greedy`.

    `choose` takes the logits (rows, vocabulary) and gives one token a row; None: the likeliest. `share_beginning` is
    for a model that is the same for every row. Nothing is computed between a yield and the next call.
    """
    import torch
    from transformers import DynamicCache

    if not prompts:
        return
    device = model.get_input_embeddings().weight.device
    ends = torch.tensor(sorted(eos_ids), device=device)
    shared = _common_prefix(prompts) if share_beginning else 0
    cache = DynamicCache(config=model.config)
    # the mode belongs to the thread: it may not last over a yield
    with torch.inference_mode():
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=device)
            model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        input_ids, mask = _left_pad([prompt[shared:] for prompt in prompts], shared, device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    alive = list(range(len(prompts)))
    while True:
        with torch.inference_mode():
            logits = model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = logits.argmax(-1) if choose is None else choose(logits)
        yield list(zip(alive, chosen.tolist(), strict=True))
        with torch.inference_mode():
            keep = (~torch.isin(chosen, ends)).nonzero().squeeze(1)
            if not len(keep):
                return
            positions = positions[:, -1:] + 1
            if len(keep) < len(alive):
                cache.batch_select_indices(keep)
                chosen, mask, positions = chosen[keep], mask[keep], positions[keep]
                alive = [alive[row] for row in keep.tolist()]
            input_ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, leaving each at least one of its own."""
    shortest = min(len(prompt) for prompt in prompts)
    for position in range(shortest - 1):
        if len({prompt[position] for prompt in prompts}) > 1:
            return position
    return shortest - 1


def _left_pad(rests: Sequence[Sequence[int]], shared: int, device: Any) -> tuple[Any, Any]:
    """Token ids (b, t) with padding on the left, and the mask (b, shared + t) that also covers the common beginning.

    The padding lies between the common beginning and the rest; it is masked, so its token does not matter.
    """
    import torch

    width = max(len(rest) for rest in rests)
    input_ids = torch.zeros(len(rests), width, dtype=torch.long)
    mask = torch.ones(len(rests), shared + width, dtype=torch.long)
    for row, rest in enumerate(rests):
        input_ids[row, width - len(rest) :] = torch.tensor(list(rest))
        mask[row, shared : shared + width - len(rest)] = 0
    return input_ids.to(device), mask.to(device)
