"""Responses sampled from the model itself: the expectation that the true Fisher takes, one draw per prompt.

Temperature 1 and the full vocabulary, since top-k or top-p would be another distribution than the one whose Fisher is
meant. Source: ALGORITHMS §3; Kunstner, Balles, Hennig: Limitations of the empirical Fisher (arXiv 1905.12558).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sstmerge_core.models.supervised import collate

if TYPE_CHECKING:
    import torch

SHORTEST = 8
"""Tokens that a sampled response may have however short the given one is."""

Encoded = tuple[list[int], int]
"""Token ids of prompt and response, and how many of them are the prompt's"""


def sample_responses(
    model: Any, encoded: Sequence[Encoded], eos_id: int, pad_id: int, seed: int, max_length: int, batch_size: int = 8
) -> list[Encoded]:
    """The prompts of `encoded` with sampled responses in place of the given ones.

    A response ends at its end-of-sequence token, or after as many tokens as the given one has, at least `SHORTEST`
    and within `max_length`. What is drawn for a sample depends on `seed` and its place in `encoded`, not on the
    samples beside it; on one machine the same call gives the same tokens.
    """
    prompts = [ids[:start] for ids, start in encoded]
    limits = [
        max(1, min(max(SHORTEST, len(ids) - start), max_length - start)) for ids, start in encoded
    ]  # a prompt is never longer than max_length − 1
    order = sorted(range(len(encoded)), key=lambda index: (len(prompts[index]), index))
    responses: dict[int, list[int]] = {}
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            numbers = [uniforms(seed, index, limits[index]) for index in chosen]
            drawn = _continue(model, [prompts[index] for index in chosen], numbers, eos_id, pad_id)
            responses.update(zip(chosen, drawn, strict=True))
    finally:
        model.train(was_training)
    return [(prompt + responses[index], len(prompt)) for index, prompt in enumerate(prompts)]


def uniforms(seed: int, index: int, count: int) -> torch.Tensor:
    """`count` numbers in [0, 1), float64, from the stream of sample `index` under `seed`."""
    import torch

    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def draw(logits: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """One token id per row of `logits` (b, v), by inverting the distribution function at `numbers` (b,)."""
    import torch

    cumulative = logits.double().softmax(-1).cumsum(-1)
    # the last value is 1 only up to rounding
    found = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True).squeeze(1)
    return found.clamp(max=logits.shape[-1] - 1)


def _continue(
    model: Any, prompts: Sequence[list[int]], numbers: Sequence[torch.Tensor], eos_id: int, pad_id: int
) -> list[list[int]]:
    """Responses to one batch of prompts; that of row i uses up `numbers[i]` at most."""
    import torch

    device = next(model.parameters()).device
    batch = collate([(prompt, len(prompt)) for prompt in prompts], pad_id).to(device)
    input_ids, mask, positions = batch.input_ids, batch.attention_mask, batch.position_ids
    steps = torch.nn.utils.rnn.pad_sequence(list(numbers), batch_first=True).to(device)
    responses: list[list[int]] = [[] for _ in prompts]
    cache = None
    with torch.no_grad():
        for step in range(steps.shape[1]):
            output = model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            tokens = draw(output.logits[:, -1], steps[:, step])
            unfinished = False
            for response, token, stream in zip(responses, tokens.tolist(), numbers, strict=True):
                if len(response) < len(stream) and (not response or response[-1] != eos_id):
                    response.append(token)
                unfinished |= len(response) < len(stream) and response[-1] != eos_id
            if not unfinished:
                break
            input_ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return responses
