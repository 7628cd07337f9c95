"""Answers to a suite, batch by batch along a recorded plan, so that an interrupted run goes on with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sstmerge_core.adapters.json_file import shown
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.models.chat import Conversation
from sstmerge_core.models.resident import chat_ids
from sstmerge_core.suites.attacks import Attack
from sstmerge_core.suites.rows import Row

if TYPE_CHECKING:
    from sstmerge_core.models.decoding import Tell
    from sstmerge_core.models.resident import Answering

SampleRow = dict[str, Any]
"""prompt_id, topic, prompt, response, reference, n_tokens, stopped: a row of the `samples` event.

Under an attack also ``asked``: what the model saw in place of the prompt.
"""


def plan_batches(
    rows: Sequence[Row], model: Answering, batch_size: int, max_new_tokens: int, attack: Attack | None = None
) -> list[list[str]]:
    """Prompt ids in batches of nearly equal size, prompts of like length together.

    At most `batch_size`, and no more than the memory that is free now has room for. The longest come first: if memory
    does not suffice, that shows at once. Raises DataError, by its id, for a prompt that the model has no positions for.
    """
    if not rows:
        return []
    length = {row.prompt_id: _length(model, row, max_new_tokens, attack) for row in rows}
    ordered = sorted(length, key=lambda prompt_id: -length[prompt_id])
    _check_lengths(rows, length, model.max_length, max_new_tokens)
    room = model.room(length[ordered[0]] + max_new_tokens)
    count = math.ceil(len(ordered) / max(1, min(batch_size, room)))
    cuts = [round(index * len(ordered) / count) for index in range(count + 1)]
    return [ordered[start:end] for start, end in pairwise(cuts)]


def _length(model: Answering, row: Row, max_new_tokens: int, attack: Attack | None) -> int:
    """Tokens of what is asked; answers that will stand between its turns are counted as long as they may get."""
    if attack is None:
        return len(chat_ids(model.tokenizer, row.prompt))
    asked = attack.asks(row.prompt)
    between = len(asked.turns) - 1
    # an answer of one character: some templates refuse an empty one
    return len(chat_ids(model.tokenizer, replace(asked, answers=("-",) * between))) + between * max_new_tokens


def shortened(rows: Sequence[Row], model: Answering, max_new_tokens: int) -> tuple[list[Row], int]:
    """The rows, where prompts that the model has no positions for lose their beginning, and how many those are.

    The template stays whole: tokens are taken from the user's words alone. Raises DataError, by its id, for a prompt
    of which nothing would be left.
    """
    longest = model.max_length
    if longest is None:
        return list(rows), 0
    found, cut = [], 0
    for row in rows:
        over = len(chat_ids(model.tokenizer, row.prompt)) + max_new_tokens - longest
        prompt = row.prompt
        while over > 0:
            words = model.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            if len(words) <= over:
                _check_lengths(
                    [row], {row.prompt_id: len(chat_ids(model.tokenizer, row.prompt))}, longest, max_new_tokens
                )
            prompt = model.tokenizer.decode(words[over:]).lstrip()
            over = len(chat_ids(model.tokenizer, prompt)) + max_new_tokens - longest
        cut += prompt != row.prompt
        found.append(row if prompt == row.prompt else replace(row, prompt=prompt))
    return found, cut


def _check_lengths(rows: Sequence[Row], length: Mapping[str, int], longest: int | None, max_new_tokens: int) -> None:
    """Prompt and answer have to fit: beyond its positions a model fails, or answers what it was never trained for."""
    over = [row for row in rows if longest is not None and length[row.prompt_id] + max_new_tokens > longest]
    if not over:
        return
    worst = max(over, key=lambda row: length[row.prompt_id])
    fault = (
        f"({shown(worst.prompt, 40)}) has {length[worst.prompt_id]} tokens; with {max_new_tokens} of the answer "
        f"that is more than the model's {longest} positions"
    )
    others = f" So have {len(over) - 1} others." if len(over) > 1 else ""
    fix = f"Shorten the row, leave it out, allow shorter answers, or have it cut (--too-long cut).{others}"
    raise DataError(Problem(f"prompt {worst.prompt_id}", fault, fix))


def generate_suite(
    model: Answering,
    rows: Sequence[Row],
    plan: Sequence[Sequence[str]],
    done: Collection[int],
    max_new_tokens: int,
    tell: Tell | None = None,
    attack: Attack | None = None,
) -> Iterator[tuple[int, float, list[SampleRow]]]:
    """Yield (batch index, seconds, sample rows) of every batch of `plan` that is not in `done`.

    `tell` hears within a batch how many of its answers have ended and how many tokens the others have. Under an
    `attack` the model is asked what that makes of a prompt. Raises DataError when the plan is not one of these rows.
    """
    by_id = {row.prompt_id: row for row in rows}
    planned = [prompt_id for batch in plan for prompt_id in batch]
    if sorted(planned) != sorted(by_id):
        raise DataError(
            Problem("batch plan", "does not hold exactly the suite's prompts", "The prompts changed: start a new run.")
        )
    for index, batch in enumerate(plan):
        if index in done:
            continue
        started = time.perf_counter()
        chosen = [by_id[prompt_id] for prompt_id in batch]
        asked = [attack.asks(row.prompt) for row in chosen] if attack else []
        asked = _led_up(model, asked, max_new_tokens)
        answers = model.generate(asked or [row.prompt for row in chosen], max_new_tokens, tell)
        samples = [
            {
                "prompt_id": row.prompt_id,
                "topic": row.topic,
                "prompt": row.prompt,
                "response": f"{attack.prefill} {answer.text}" if attack and attack.prefill else answer.text,
                "reference": row.response,
                "n_tokens": answer.n_tokens,
                "stopped": answer.stopped,
            }
            for row, answer in zip(chosen, answers, strict=True)
        ]
        for sample, conversation in zip(samples, asked, strict=False):
            sample["asked"] = conversation.told
        yield index, time.perf_counter() - started, samples


def _led_up(model: Answering, asked: list[Conversation], max_new_tokens: int) -> list[Conversation]:
    """Conversations of one script with the model's answers to all turns but the last."""
    while asked and not asked[0].is_at_last:
        answers = model.generate(asked, max_new_tokens)
        asked = [one.answered(answer.text or "-") for one, answer in zip(asked, answers, strict=True)]
    return asked
