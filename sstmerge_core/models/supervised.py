"""Prompt–response pairs as token batches: the one loss that training and the Fisher pass share.

Loss of a sample: mean negative log-likelihood of the response's tokens and the end-of-sequence token, in nats; prompt
and padding are masked, the chat template is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

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


LARGEST_LOGITS = 256 << 20
"""Bytes of a batch's logits in float32 from which on they are not all made at once, where nobody needs them whole"""
LARGEST_OF_ONE = 64 << 20
"""The same of one sample, which no smaller batch makes fewer: 0.7 GB at 256 tokens of Llama 3 otherwise (measured)"""
PIECE = 32 << 20
"""Bytes of those that are made at once then; a backward pass has about five times as much (measured)"""


def sample_losses(model: Any, batch: Batch, *, pieces: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each sample in nats per response token (b,), and its number T of response tokens (b,).

    Logits are computed only from the first response token on: with left padding that is the batch's tail. With `pieces`
    a large tail of a model for which `head_is_plain` is computed piece by piece, and again in a backward pass: 12 bytes
    a token and word of the vocabulary otherwise, 6 GB at 4,096 tokens of Llama 3.
    """
    keep = int((batch.labels != -100).sum(-1).max()) + 1
    labels = batch.labels[:, -keep:][:, 1:]
    counts = (labels != -100).sum(-1)
    of_one = 4 * keep * _vocabulary(model)
    if pieces and (of_one > LARGEST_OF_ONE or len(labels) * of_one > LARGEST_LOGITS) and head_is_plain(model):
        sums = _sums_by_piece(model, batch, labels)
        return sums / counts.clamp(min=1), counts
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=keep,
        use_cache=False,
    ).logits
    return _sums(logits[:, :-1], labels) / counts.clamp(min=1), counts


def _sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each sample's labels, summed, (b,) float32."""
    import torch

    mask = labels != -100
    log_probabilities = torch.log_softmax(logits[mask].float(), dim=-1)
    token_losses = -log_probabilities.gather(1, labels[mask][:, None]).squeeze(1)
    rows = mask.nonzero()[:, 0]
    zeros = torch.zeros(len(labels), dtype=torch.float32, device=token_losses.device)
    return zeros.index_add(0, rows, token_losses)


def _sums_by_piece(model: Any, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.utils.checkpoint import checkpoint

    head, keep = model.get_output_embeddings(), labels.shape[1] + 1
    hidden = model.base_model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state[:, -keep:-1]

    def piece(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return _sums(head(hidden), labels)

    steps = max(1, PIECE // (4 * len(labels) * _vocabulary(model)))
    total = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
    for start in range(0, keep - 1, steps):
        part = hidden[:, start : start + steps], labels[:, start : start + steps]
        if torch.is_grad_enabled():
            total = total + checkpoint(piece, *part, use_reentrant=False, preserve_rng_state=False)
        else:
            total = total + piece(*part)
    return total


def head_is_plain(model: Any) -> bool:
    """Whether the model's logits are its output embedding of its body's last hidden state and nothing more.

    Asked of the model itself, once: some scale or cap their logits. Not where a hook is on the output embedding: what
    wants to see each token there wants it once.
    """
    import torch

    head = model.get_output_embeddings()
    if head is None or head._forward_hooks or model.base_model is model:
        return False
    if model not in _PLAIN:
        probe = torch.zeros(1, 2, dtype=torch.long, device=model.get_input_embeddings().weight.device)
        try:
            with torch.no_grad():
                hidden = model.base_model(input_ids=probe, use_cache=False).last_hidden_state
                _PLAIN[model] = torch.equal(model(input_ids=probe, use_cache=False).logits, head(hidden))
        except (AttributeError, TypeError):
            _PLAIN[model] = False
    return _PLAIN[model]


_PLAIN: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])
