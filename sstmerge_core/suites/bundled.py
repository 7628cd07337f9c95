"""The bundled prompt suites, and suites of the user's own as JSONL files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sstmerge_core import access
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.recipe import Source, Suite
from sstmerge_core.suites import attacks
from sstmerge_core.suites.declared import SHIPPED, DeclaredSuite, read
from sstmerge_core.suites.rows import load_rows, rows_digest, splits, take


def _declared() -> dict[str, DeclaredSuite]:
    """The shipped suites whose rows are the demo's own files, by what they measure."""
    paths = [path for path in sorted(SHIPPED.glob("*.yaml")) if _OWN in path.read_text(encoding="utf-8")]
    order = ("harmful", "benign", "utility", "general")
    return {suite.name: suite for suite in sorted(map(read, paths), key=lambda one: order.index(one.role))}


_OWN = "file: ../demo/"
BUNDLED = _declared()
"""name → its declaration in data/suites"""
ROLES = {name: suite.role for name, suite in BUNDLED.items() if suite.role != "general"}
"""What each bundled suite measures."""
GENERAL = next(name for name, suite in BUNDLED.items() if suite.role == "general")
"""General benign prompts without responses, half of which only look dangerous; for the benign Fisher alone."""
PROMPTS = 64
"""Prompts per suite by default; at 64 a rate of one half has a 95 % interval of ±12 points."""
MAX_NEW_TOKENS = Suite.model_fields["max_new_tokens"].default


def rows_of(suite: DeclaredSuite) -> Path:
    """The file that holds a bundled suite's rows."""
    return (suite.path.parent / str(suite.sources[0].file)).resolve()


def source(name_or_path: str, split: str, n: int | None = None, *, answered: bool = False) -> tuple[Source, int]:
    """A suite's rows of one split as a content-addressed source, and how many rows are taken (at most `n`).

    `answered` rows need a response, for a loss is taken of it. Raises DataError for unknown suites, missing splits,
    unreadable files and rows without a response that is needed.
    """
    bundled = BUNDLED.get(name_or_path)
    path = rows_of(bundled) if bundled else access.place(name_or_path)
    if not path.exists():
        fix = f"Bundled suites: {', '.join(ROLES)}. Or give a file of prompts and responses."
        raise DataError(Problem(str(name_or_path), "there is no such suite", fix))
    rows = load_rows(path, split)
    lacking = [row.prompt_id for row in rows if answered and not row.response.strip()]
    if lacking:
        fault = f"{len(lacking)} of {len(rows)} rows of split {split!r} have no response, {lacking[0]} among them"
        raise DataError(Problem(str(path), fault, "Gradients are taken of responses: add them, or give another suite."))
    count = len(rows) if n is None else min(n, len(rows))
    name = path.stem
    return Source(name=name, path=str(path), sha256=rows_digest(take(rows, count))), count


def split_there(name_or_path: str, split: str) -> str:
    """`split`, or ``test`` where ``unseen`` is asked of a suite without categories that no other split has.

    A task is not split by harm category: merges told on unseen categories are measured on the task's test rows.
    """
    if split != "unseen":
        return split
    bundled = BUNDLED.get(name_or_path)
    path = rows_of(bundled) if bundled else access.place(name_or_path)
    known = splits(path) if path.is_file() else [split]
    return split if split in known else "test"


def suite(
    name_or_path: str,
    role: str,
    split: str,
    n: int = PROMPTS,
    *,
    metric: str = "",
    max_new_tokens: int = MAX_NEW_TOKENS,
    encoder: str = "",
    encoded: str = "",
) -> Suite:
    """The recipe's description of a suite. `metric` is that of a utility suite, where it is not ROUGE-L; `encoder` and
    `encoded` are as a `Suite` has them.
    """
    found, count = source(name_or_path, split, n)
    about: dict[str, Any] = {"metric": metric, "max_new_tokens": max_new_tokens}
    about |= {"encoder": encoder, "encoded": encoded}
    return Suite(name=found.name, role=role, split=split, n=count, source=found, **about)


def attacked(plain: Suite, attack: str) -> Suite:
    """The same prompts under an attack, as a suite of its own name. Raises RecipeError for an unknown attack."""
    rows = take(load_rows(plain.source.path, plain.split), plain.n)
    name = f"{plain.name}{attacks.BETWEEN}{attack}"
    return plain.model_copy(update={"name": name, "attack": attack, "attacked": attacks.digest(attack, rows)})
