"""Figures without generation: losses of given texts, and how far a model is from another along them. Batched.

Of each harmful prompt the loss of its refusal; of each near miss the losses of its helpful answer and of the refusal of
its harmful twin; of each utility prompt that of its reference, and KL(U ‖ merge) along it. All are means over the
response's tokens, in nats, as in training and in the Fisher pass (`models.supervised`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sstmerge_core.analysis.screening import SPLIT
from sstmerge_core.evaluate import metric_rows
from sstmerge_core.fisher.gradients import encode_rows, losses_by_batch, padding
from sstmerge_core.fisher.room import AT_ONCE
from sstmerge_core.models.decoding import within_positions
from sstmerge_core.models.supervised import LARGEST_LOGITS, Example, collate
from sstmerge_core.recipe import Suite
from sstmerge_core.suites import twins
from sstmerge_core.suites.rows import Row, load_rows, take

if TYPE_CHECKING:
    import torch

LIKELIEST = 512
"""Tokens of U's distribution that are told apart at each position"""
LENGTH = 512
"""Tokens of a prompt and its response; longer prompts lose their beginning"""


@dataclass(frozen=True)
class Texts:
    """What the model is made to say to the prompts of one suite."""

    suite: str
    role: str
    topics: list[str]
    """Of each prompt"""
    given: dict[str, list[Example]]
    """``refusal`` and ``reference``, where the suite has such texts: one for each prompt"""


@dataclass(frozen=True)
class Kept:
    """U's next-token distributions along one response: its likeliest tokens, and what is left for the rest."""

    tokens: torch.Tensor
    """(T, K) int64"""
    log_probabilities: torch.Tensor
    """(T, K) float32, falling"""


def texts_of(suites: Sequence[Suite], n: int, split: str = SPLIT) -> list[Texts]:
    """At most `n` rows of each suite's file, of the split that settings are chosen on, with the texts to be said.

    A harmful prompt without a refusal of its own gets `twins.REFUSAL`, a near miss its twin's. Raises DataError where a
    file has no such split.
    """
    harmful = next((suite.source.path for suite in suites if suite.role == "harmful"), "")
    return [_texts(suite, n, split, harmful) for suite in suites]


def _texts(suite: Suite, n: int, split: str, harmful: str) -> Texts:
    there = load_rows(suite.source.path, split)
    rows = take(there, min(n, len(there)))
    given = {}
    if suite.role == "harmful":
        given["refusal"] = [Example(row.prompt, row.response or twins.REFUSAL) for row in rows]
    elif all(row.response for row in rows):
        given["reference"] = [Example(row.prompt, row.response) for row in rows]
    if suite.role == "benign":
        refused = _refused(suite, len(rows), harmful, split, rows)
        given["refusal"] = [Example(row.prompt, row.response) for row in refused]
    return Texts(suite.name, suite.role, [row.topic for row in rows], given)


def _refused(suite: Suite, n: int, harmful: str, split: str, rows: Sequence[Row]) -> list[Row]:
    if harmful and any(row.twin_of for row in rows):
        return twins.refused(suite.source.path, n, harmful, split)
    return [Row(row.prompt_id, row.topic, row.prompt, twins.REFUSAL) for row in rows]


def measure(model: Any, tokenizer: Any, texts: Sequence[Texts], reference: Mapping[str, Sequence[Kept]]) -> list[Any]:
    """Every metric that teacher forcing gives, as rows of the ``metrics`` event; suites are told with their split.

    `reference` is what `distributions` kept of U, by suite; without it there is no divergence. Memory: the logits of
    one batch, at most `models.supervised.LARGEST_LOGITS` but for a single response that takes more.
    """
    rows = []
    for own in texts:
        found = {}
        for name, examples in own.given.items():
            if name == "reference" and own.suite in reference:
                found[name], found["divergence"] = compared(model, tokenizer, examples, reference[own.suite])
            else:
                found[name] = losses(model, tokenizer, examples)
        rows += metric_rows.forced_metrics(own.suite, own.role, SPLIT, found, own.topics)
    return rows


def losses(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[float]:
    """Mean negative log-likelihood of each response with its end, nats per token, in the given order."""
    import torch

    encoded = encode_rows(tokenizer, examples, within_positions(model, LENGTH))
    found = [0.0] * len(encoded)
    with torch.no_grad():
        for chosen, own, _ in losses_by_batch(model, encoded, padding(tokenizer), AT_ONCE):
            for index, loss in zip(chosen, own.tolist(), strict=True):
                found[index] = loss
    return found


def distributions(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[Kept]:
    """What is kept of a model's next-token distributions along each response, on the CPU: 12·T·K bytes each."""
    found = {}
    for index, own, _ in _log_probabilities(model, tokenizer, examples):
        values, tokens = own.topk(min(LIKELIEST, own.shape[-1]), dim=-1)
        found[index] = Kept(tokens.cpu(), values.cpu())
    return [found[index] for index in range(len(examples))]


def compared(
    model: Any, tokenizer: Any, examples: Sequence[Example], kept: Sequence[Kept]
) -> tuple[list[float], list[float]]:
    """`losses`, and KL(U ‖ model) along each response, nats per token: over U's likeliest tokens and all others as one.

    To put outcomes together never adds divergence (Cover & Thomas, Elements of Information Theory, §2.5 and 2.8), so
    this is a lower bound of the KL over the whole vocabulary, and equal to it where that has no more tokens.
    """
    lost, moved = [0.0] * len(examples), [0.0] * len(examples)
    for index, own, said in _log_probabilities(model, tokenizer, examples):
        lost[index] = -float(own.gather(1, said[:, None]).mean())
        there = kept[index].log_probabilities.to(own)
        here = own.gather(1, kept[index].tokens.to(own.device))
        rest = _rest(there), _rest(here)
        told = (there.exp() * (there - here)).sum(1)
        if own.shape[-1] > there.shape[-1]:
            told = told + rest[0].exp() * (rest[0] - rest[1])
        moved[index] = float(told.mean())
    return lost, moved


def _rest(log_probabilities: torch.Tensor) -> torch.Tensor:
    """log of what the given probabilities leave of 1, (T,); at least what float32 can tell from nothing."""
    taken = log_probabilities.double().exp().sum(1)
    return (1.0 - taken).clamp(min=1e-7).log().to(log_probabilities)


def _log_probabilities(model: Any, tokenizer: Any, examples: Sequence[Example]) -> Any:
    """(which response, its next-token log-probabilities (T, vocabulary) float32, its tokens (T,)), in batches."""
    import torch

    encoded = encode_rows(tokenizer, examples, within_positions(model, LENGTH))
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    device = next(model.parameters()).device
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
    with torch.no_grad():
        while order:
            longest = max(len(ids) - start for ids, start in (encoded[index] for index in order[:AT_ONCE])) + 1
            size = max(1, min(AT_ONCE, LARGEST_LOGITS // (4 * longest * vocabulary)))
            chosen, order = order[:size], order[size:]
            batch = collate([encoded[index] for index in chosen], padding(tokenizer)).to(device)
            keep = int((batch.labels != -100).sum(-1).max()) + 1
            logits = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                logits_to_keep=keep,
                use_cache=False,
            ).logits[:, :-1]
            labels = batch.labels[:, -keep:][:, 1:]
            for index, own, said in zip(chosen, logits, labels, strict=True):
                mask = said != -100
                yield index, torch.log_softmax(own[mask].float(), dim=-1), said[mask]
