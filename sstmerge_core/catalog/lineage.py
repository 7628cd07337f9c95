"""Where an adapter comes from: what it was merged from, by which run, or what it was trained on. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sstmerge_core import documents
from sstmerge_core.adapters import RECORD
from sstmerge_core.catalog import Entry
from sstmerge_core.errors import SSTMergeError
from sstmerge_core.recipe import Recipe

DEEPEST = 12
"""Generations that are followed; a merge of merges of merges is rare enough"""


@dataclass(frozen=True)
class Ancestry:
    """One adapter and what it was made of."""

    name: str
    how: str
    """``merged``, ``trained``, ``hub``, ``upload``, or empty where nothing is known"""
    text: str
    """How it was made, for people: the method with its parameters, the training, the repository"""
    run_id: str = ""
    """Of the run that merged it"""
    known: bool = True
    """Whether the adapter itself is in this workspace's catalogue"""
    parents: tuple[Ancestry, ...] = ()


def ancestry(entry: Entry, others: Iterable[Entry], depth: int = DEEPEST) -> Ancestry:
    """The tree of `entry`; parents are found among `others` by their content."""
    record = _record(entry.path)
    by_content = {other.sha256: other for other in others}
    if merged := _merged(record):
        recipe, run_id = merged
        parents = tuple(
            ancestry(by_content[source["sha256"]], by_content.values(), depth - 1)
            if source["sha256"] in by_content and depth
            else Ancestry(source["name"], "", "", known=False)
            for source in recipe["adapters"]
        )
        return Ancestry(entry.name, "merged", _label(record, recipe), run_id, parents=parents)
    return Ancestry(entry.name, *_alone(entry, record))


def _merged(record: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
    recipe = record.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("adapters"), list):
        return None
    if not all(isinstance(one, dict) and {"name", "sha256"} <= one.keys() for one in recipe["adapters"]):
        return None
    return recipe, str(record.get("run_id") or "")


def _label(record: dict[str, Any], recipe: dict[str, Any]) -> str:
    """The method and its parameters; of a method that this version does not know, what the record says."""
    try:
        sources = [source | {"path": ""} for source in (recipe["base"], *recipe["adapters"])]
        named = {"method": recipe["method"], "parameters": recipe["parameters"]}
        return Recipe.model_validate(named | {"base": sources[0], "adapters": sources[1:]}).label
    except (SSTMergeError, ValueError, KeyError, TypeError):
        return str(record.get("description") or recipe.get("method") or "")


def _alone(entry: Entry, record: dict[str, Any]) -> tuple[str, str]:
    training = record.get("training")
    kind, _, place = entry.origin.partition(":")
    if kind == "hub":
        name, _, commit = place.partition("@")
        return "hub", f"Hugging Face {name} at {commit[:12]}"
    if isinstance(training, dict) and training:
        rows = f" on {training['rows']:,} rows" if isinstance(training.get("rows"), int) else ""
        return "trained", f"Trained{rows}, rank {training.get('r', entry.rank)}, seed {training.get('seed', '?')}"
    return ("upload", f"Uploaded as {place}") if kind == "upload" else ("", "")


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = documents.read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
