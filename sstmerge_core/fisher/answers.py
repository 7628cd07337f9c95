"""A model's own answers, the base's or the utility adapter's: what a merge should leave as it is. Generated once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import documents
from sstmerge_core.models.supervised import Example
from sstmerge_core.workspace import Workspace, write_json

if TYPE_CHECKING:
    from sstmerge_core.models.resident import ResidentModel

MAX_NEW_TOKENS = 48
BATCH = 16


def identity(version: int) -> dict[str, int]:
    """What, beside base, prompts and dtype, the answers depend on; `version` is that of generation."""
    return {"max_new_tokens": MAX_NEW_TOKENS, "version": version}


def path(workspace: Workspace, entry: str) -> Path:
    """Where the answers lie; `entry` is the `cache.key` of all they depend on."""
    return workspace.cache / "answers" / f"{entry}.json"


def load(workspace: Workspace, entry: str) -> list[Example] | None:
    """The kept answers with their prompts; None where there are none, or not as they were written."""
    try:
        told = documents.read_json(path(workspace, entry))
        if told["sha256"] != _digest(told["answers"]):
            return None
        return [Example(row["prompt"], row["response"], row["ended"]) for row in told["answers"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(workspace: Workspace, entry: str, answers: Sequence[Example], parts: dict[str, Any]) -> None:
    """Keep `answers` whole or not at all; `parts` is stored beside them for people."""
    rows = [answer._asdict() for answer in answers]
    write_json(path(workspace, entry), {"parts": parts, "answers": rows, "sha256": _digest(rows)})


def _digest(rows: Any) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def own_answers(
    resident: ResidentModel,
    prompts: Sequence[str],
    progress: Callable[[], None] = lambda: None,
    put: Callable[[], None] | None = None,
) -> list[Example]:
    """Greedy answers of base + ΔW, at most `MAX_NEW_TOKENS` long, in the order of `prompts`.

    `put` has the model compute with ΔW; None is the base model. `progress` is called before every batch and may raise
    to stop.
    """
    if put is None:
        resident.set_delta(None)
    else:
        put()
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: dict[int, Example] = {}
    for first in range(0, len(order), BATCH):
        progress()
        chosen = order[first : first + BATCH]
        answers = resident.generate([prompts[index] for index in chosen], MAX_NEW_TOKENS)
        for index, answer in zip(chosen, answers, strict=True):
            # an answer without any text has nothing but its end to be measured on
            found[index] = Example(prompts[index], answer.text, answer.stopped or not answer.text)
    return [found[index] for index in range(len(prompts))]
