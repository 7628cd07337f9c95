"""Prompt–response pairs as token batches: the one loss that training and the Fisher pass share.

Loss of a sample: mean negative log-likelihood of the response's tokens and the end-of-sequence token, in nats; prompt
and padding are masked, the chat template is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sstmerge_core.models.chat import chat_text

if TYPE_CHECKING:
    import torch


class Example(NamedTuple):
    """A prompt and the response whose likelihood is measured."""

    prompt: str
    response: str
    ended: bool = True
    """Whether the response ends here; False for an answer that was cut off, which then gets no end-of-sequence token"""


@dataclass(frozen=True)
class Batch:
    """Left-padded token batch of b samples and t positions."""

    input_ids: torch.Tensor
    """(b, t)"""
    attention_mask: torch.Tensor
    """(b, t), 1 on tokens"""
    labels: torch.Tensor
    """(b, t), −100 where nothing is predicted"""

    @property
    def position_ids(self) -> torch.Tensor:
        """(b, t); padding does not count, so that a sample's loss does not depend on its neighbours."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)

    def to(self, device: Any) -> Batch:
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))


def encode(tokenizer: Any, prompt: str, response: str, max_length: int, *, ended: bool = True) -> tuple[list[int], int]:
    """Token ids of templated prompt + response + EOS, cut at `max_length`, and how many of them are the prompt's.

    Without `ended` there is no EOS: the response goes on where it was cut off.
    """
    start = tokenizer(chat_text(tokenizer, prompt), add_special_tokens=False)["input_ids"]
    answer = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * ended
    start = start[-max(1, max_length - len(answer)) :]  # a long prompt loses its beginning, never the answer
    return (start + answer)[:max_length], len(start)


def collate(encoded: Sequence[tuple[list[int], int]], pad_id: int) -> Batch:
    """Left-padded batch of the results of `encode`."""
    import torch

    width = max(len(ids) for ids, _ in encoded)
    input_ids = torch.full((len(encoded), width), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for row, (ids, prompt_length) in enumerate(encoded):
        start = width - len(ids)
        tokens = torch.tensor(ids)
        input_ids[row, start:] = tokens
        attention_mask[row, start:] = 1
        labels[row, start + prompt_length :] = tokens[prompt_length:]
    return Batch(input_ids, attention_mask, labels)


def sample_losses(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each sample in nats per response token (b,), and its number T of response tokens (b,).

    Logits are computed only from the first response token on: with left padding that is the batch's tail.
    """
    import torch

    keep = int((batch.labels != -100).sum(-1).max()) + 1
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=keep,
        use_cache=False,
    ).logits
    labels = batch.labels[:, -keep:][:, 1:]
    mask = labels != -100
    log_probabilities = torch.log_softmax(logits[:, :-1][mask].float(), dim=-1)
    token_losses = -log_probabilities.gather(1, labels[mask][:, None]).squeeze(1)
    counts = mask.sum(-1)
    rows = mask.nonzero()[:, 0]
    sums = torch.zeros(len(counts), dtype=torch.float32, device=token_losses.device).index_add(0, rows, token_losses)
    return sums / counts.clamp(min=1), counts
