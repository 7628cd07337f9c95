"""Damaged bytes in every kind of file that a workspace holds."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT
from benchmarks.reliability import checks, worker_kills
from benchmarks.reliability.children import asked
from sstmerge_core.recipe import Recipe, Source
from sstmerge_core.store.events import FILE_NAME, read_events
from sstmerge_core.workspace import Workspace

Row = dict[str, Any]


def _flip(data: bytes, rng: random.Random, times: int) -> bytes:
    changed = bytearray(data)
    for _ in range(times if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "one bit": lambda data, rng: _flip(data, rng, 1),
    "bits here and there": lambda data, rng: _flip(data, rng, 200),
    "no byte": lambda data, rng: b"",
    "cut short": lambda data, rng: data[: rng.randrange(max(1, len(data)))],
    "a block of zeros": lambda data, rng: _zeros(data, rng),
    "another file's text": lambda data, rng: b"no such file at all\n" * 200,
}


def _zeros(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(max(1, len(data)))
    return data[:start] + bytes(min(4096, len(data) - start)) + data[start + 4096 :]


FILES = {
    "a run's events": "runs/*/events.jsonl",
    "the catalogue's events": "catalog/events.jsonl",
    "a pair's events": "pairs/*/events.jsonl",
    "annotations": "annotations/*/events.jsonl",
    "database": "sstmerge.duckdb",
    "the database's journal": "sstmerge.duckdb.wal",
    "queue": "queue.sqlite",
    "the queue's journal": "queue.sqlite-wal",
    "hash cache": "cache/hashes.sqlite",
    "gradient cache": "cache/gradients/*/gradients.safetensors",
    "fit in the cache": "cache/fitted/*/cores.safetensors",
    "statistics of a fit": "cache/fitted/*/statistics.json",
    "weights of a merge": "runs/*/artifacts/adapter/adapter_model.safetensors",
    "settings of a merge": "runs/*/artifacts/adapter/adapter_config.json",
    "record of a merge": "runs/*/artifacts/adapter/sstmerge.json",
    "recipe file of a merge": "runs/*/artifacts/adapter/recipe.yaml",
    "weights of an uploaded adapter": "adapters/*/adapter_model.safetensors",
    "settings of an uploaded adapter": "adapters/*/adapter_config.json",
    "snapshot": "snapshots/snap.*.duckdb",
    "saved queries": "queries/saved.json",
    "history of queries": "queries/history.json",
    "conversation": "playground/conversations/*.json",
    "result of an experiment": "experiments/*.json",
    "uploaded rows": "uploads/*/rows.jsonl",
}
READ_BY_A_MERGE = {name for name in FILES if "cache" in name or "fit" in name or "uploaded" in name or name == "queue"}
SHORT = {("gradient cache", "one bit")}
"""What the tests try of it"""
TALK = "0123456789ab"
Queries = dict[str, dict[str, str]]
PAGES: Queries = {"adapters": {}, "merge": {}, "overview": {}, "run": {"run": ""}, "pareto": {}, "compare": {}}
OWN_PAGES: dict[str, Queries] = {
    "saved queries": {"query": {}},
    "history of queries": {"query": {}},
    "conversation": {"playground": {"chat": TALK}},
    "result of an experiment": {"experiments": {"experiment": "pareto"}},
    "uploaded rows": {"train": {"file": "uploads/abc/rows.jsonl"}},
    "catalogue's events": {"adapters": {}},
}
"""Where a file is shown; the others are tried on two pages"""


@dataclass
class Case:
    """A workspace with one file of every kind, and the job whose results are known."""

    work: worker_kills.Case
    template: Path

    @classmethod
    def made(cls, work: worker_kills.Case) -> Case:
        template = work.folder / "whole"
        shutil.copytree(work.folder / "straight", template)

        def prepare() -> None:
            own = Workspace(template)
            _furnish(own, work.recipes[0])

        asked(prepare)
        return cls(work, template)

    def recipes(self, own: Workspace) -> list[Recipe]:
        """The job's recipes, of the adapters as they lie in the workspace."""

        def moved(source: Source) -> Source:
            return source.model_copy(update={"path": str(own.adapters / source.name)})

        return [one.model_copy(update={"adapters": tuple(map(moved, one.adapters))}) for one in self.work.recipes]


def _furnish(own: Workspace, recipe: Recipe) -> None:
    from sstmerge_core import catalog
    from sstmerge_core.playground import conversation
    from sstmerge_core.runs.execute import inspect
    from sstmerge_core.store import Owner, remarks, saved

    for source in recipe.adapters:
        shutil.copytree(source.path, own.adapters / source.name)
        catalog.add(own, own.adapters / source.name, name=source.name)
    inspect({"base": recipe.base, "utility": recipe.adapters[0], "safety": recipe.adapters[1]}, own)
    remarks.note(own, recipe.run_id, "a note")
    with Owner.open(own) as owner:
        owner.ingest()
        owner.publish()
    saved.save(own, saved.SavedQuery("mine", "SELECT 1"))
    saved.remember(own, saved.PastQuery("SELECT 2"))
    talk = conversation.Conversation(TALK, [conversation.Turn("w1 w2", 8)])
    conversation.save(own, talk)
    (own.root / "experiments").mkdir()
    for shipped in sorted((ROOT / "data" / "demo" / "experiments").glob("*.json")):
        shutil.copyfile(shipped, own.root / "experiments" / shipped.name)
    rows = own.uploads / "abc" / "rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"prompt": "a", "response": "b"}\n' * 20)
    (own.root / "sstmerge.duckdb.wal").write_bytes(b"")
    (own.root / "queue.sqlite-wal").write_bytes(b"")


def harm(case: Case, file: str, damage: str, seed: int) -> Row:
    """One file damaged: nothing is a traceback, no result differs without a word, and all that can be mended is."""
    rng = random.Random(f"{seed} damage {file} {damage}")
    own = Workspace(case.work.folder / "damaged")
    shutil.rmtree(own.root, ignore_errors=True)
    shutil.copytree(case.template, own.root)
    begun = time.monotonic()
    row: Row = {"kind": "damage", "stage": file, "mode": damage}
    places = sorted(own.root.glob(FILES[file]))
    if not places:
        return row | {"faults": [f"suite: no file is {FILES[file]}"], "seconds": 0.0}
    place = rng.choice(places)
    before = checks.whole_lines(own)
    told = list(read_events(place.parent)) if place.name == FILE_NAME else []
    place.write_bytes(DAMAGES[damage](place.read_bytes(), rng) if place.stat().st_size else rng.randbytes(3000))

    def look() -> checks.Faults:
        faults: checks.Faults = []
        chosen = OWN_PAGES.get(file) or {name: PAGES[name] for name in rng.sample(list(PAGES), 2)}
        for name, query in chosen.items():
            given = {key: value or case.work.recipes[0].run_id for key, value in query.items()}
            said, shown = checks.page(own, name, **given)
            faults += shown + ([] if said else [f"page: {name} says nothing"])
        return faults

    try:
        faults = asked(look) + asked(lambda: _mended(own, place))
        if place.name == FILE_NAME:  # what is read was written; a flip in the checksum's name leaves one name more
            false = [one for one in read_events(place.parent) if not any(one.items() >= was.items() for was in told)]
            faults += [f"false: {str(one)[:200]}" for one in false]
        damaged = str(place.relative_to(own.root))
        faults += checks.kept({name: lines for name, lines in before.items() if name != damaged}, own)
        if file in READ_BY_A_MERGE:
            faults += asked(lambda: _merged(case, own))
    except RuntimeError as error:
        faults = [f"check: {error}"]
    return row | {"faults": faults, "seconds": time.monotonic() - begun}


def _mended(own: Workspace, place: Path) -> checks.Faults:
    """The database can be made again, and the queue says what to do."""
    from sstmerge_core.errors import SSTMergeError
    from sstmerge_core.jobs.queue import Queue
    from sstmerge_core.store import rebuild

    faults: checks.Faults = []
    try:
        Queue(own).active()
    except SSTMergeError as error:
        if place.name.startswith("queue"):
            place.unlink()
            for path in own.root.glob("queue.sqlite*"):
                path.unlink()
            Queue(own).active()
        else:
            faults.append(f"queue: {error}")
    try:
        rebuild(own)
    except SSTMergeError as error:
        faults.append(f"rebuild: {error}")
    return faults + checks.one_truth(own, own.root.parent / "scratch")


def _merged(case: Case, own: Workspace) -> checks.Faults:
    """The job once more, from what is in the caches: the same bits, or an error that names what is wrong."""
    from sstmerge_core.errors import SSTMergeError
    from sstmerge_core.runs.execute import execute

    shutil.rmtree(own.runs)
    own.create()
    try:
        execute(case.recipes(own), own)
    except SSTMergeError:
        return []
    return checks.true_so_far(own, case.work.straight, finished=True)
