"""Runs that ship with the demo, measured by this program: the base model, the adapters alone, merges, experiments.

Their event files lie in one archive, ``<run id>/events.jsonl`` each: 45 MB of text in 2 MB. ``python -m
sstmerge_core.upkeep.shipped`` takes them from the workspace into ``data/demo`` and writes the scores where they are
told: the adapters' records and the README.
"""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sstmerge_core import experiments
from sstmerge_core.adapters import RECORD
from sstmerge_core.demo import model
from sstmerge_core.demo.adapters import ADAPTERS, DATA
from sstmerge_core.experiments import result
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.store.events import FILE_NAME, decode, last_status, read_events
from sstmerge_core.workspace import Workspace, new_folder, write_file, write_json

RUNS = DATA / "runs.tar.xz"
EXPERIMENTS = DATA / "experiments"
DEMO_PAIR, DEMO_ALPHA = "A5_A7", 0.6
DEMO_METHODS = ("linear", "task_arithmetic", "sst_gevp")
"""What ``sstmerge demo`` merges"""
JUDGES = (DEFAULT_JUDGE, "rouge_score")
"""Whose figures are told; a run may have been re-scored by others"""


def runs() -> Iterator[tuple[str, bytes]]:
    """The shipped runs, read one after the other: id and event file. They come in the order of their ids."""
    with tarfile.open(RUNS, "r|xz") as archive:
        for member in archive:
            events = archive.extractfile(member)
            if events is not None:
                yield member.name.partition("/")[0], events.read()


def install(workspace: Workspace) -> int:
    """Unpack the shipped event files into the workspace where they are not there yet; how many were new.

    A run's folder is there whole or not at all, so a call after a kill goes on where that one stopped.
    """
    count = 0
    for run_id, events in runs():
        target = workspace.run(run_id)
        if not target.exists():
            with new_folder(target) as temporary:
                (temporary / FILE_NAME).write_bytes(events)
            count += 1
    for source in sorted(EXPERIMENTS.glob("*.json")):
        target = result.folder(workspace) / source.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, source.read_text(encoding="utf-8"))
    return count


def ship(workspace: Workspace) -> int:
    """Pack the finished runs of the bundled adapters into the demo's data, without this machine's paths.

    The merges that ``sstmerge demo`` makes are left out: it is there to make them. Returns how many were packed.
    """
    found: list[tuple[str, bytes]] = []
    for folder in sorted(workspace.run_folders(), key=lambda path: path.name):
        started = next((event for event in read_events(folder) if event["event"] == "run_started"), None)
        if started and last_status(folder) == "finished" and not _made_by_the_demo(started):
            lines = "".join(
                json.dumps(_without_paths(event), ensure_ascii=False) + "\n" for event in read_events(folder)
            )
            found.append((folder.name, lines.encode()))
    write_file(RUNS, pack(found))
    shutil.rmtree(EXPERIMENTS, ignore_errors=True)
    for name in experiments.EXPERIMENTS:
        for path in experiments.results(workspace, name)[:1]:
            EXPERIMENTS.mkdir(exist_ok=True)
            write_file(EXPERIMENTS / path.name, path.read_text(encoding="utf-8"))
    return len(found)


def pack(found: Iterable[tuple[str, bytes]]) -> bytes:
    """The archive of runs, id and event file each: the same bytes for the same runs, whoever packs them and when."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for run_id, events in sorted(found):
            member = tarfile.TarInfo(f"{run_id}/{FILE_NAME}")  # of nobody, and of no time
            member.size = len(events)
            archive.addfile(member, io.BytesIO(events))
    return lzma.compress(packed.getvalue(), preset=9)


def _made_by_the_demo(started: dict[str, Any]) -> bool:
    own = started["pair"] == DEMO_PAIR and started["method"] in DEMO_METHODS
    return own and started["parameters"].get("alpha") == DEMO_ALPHA


def _without_paths(value: Any) -> Any:
    """A recipe's sources keep their hashes; where they lay on the machine that measured says nothing elsewhere."""
    if isinstance(value, dict):
        sources = {"name", "path", "sha256"} == set(value)
        return {k: "" if sources and k == "path" else _without_paths(v) for k, v in value.items()}
    return [_without_paths(one) for one in value] if isinstance(value, list) else value


Scores = dict[str, dict[str, dict[str, Any]]]
"""metric rows by name of the adapter (or ``base``) and "metric suite"."""


def scores() -> Scores:
    """What the shipped runs of single adapters and of the base model measured."""
    found: Scores = {}
    for _, events in runs():
        pair = ""
        for event in filter(None, map(decode, events.splitlines(keepends=True))):
            if event["event"] == "run_started":
                evaluation = event["recipe"]["evaluation"] or {"suites": []}
                told = {suite["split"] for suite in evaluation["suites"]} == {"test"}
                alone = event["method"] in ("adapter", "base") and event["base"] == model.NAME
                pair = event["pair"] if told and alone else ""
            elif event["event"] == "metrics" and pair:
                own = [row for row in event["rows"] if row["judge"] in JUDGES and row["value"] is not None]
                rows = {f"{row['metric']} {row['suite']}": row for row in own}
                found.setdefault(pair, {}).update(rows)
    return found


COLUMNS = {
    "resistance harmful": "resistance ↑",
    "over_refusal near_miss": "over-refusal ↓",
    "rouge_l facts": "ROUGE-L facts ↑",
    "rouge_l instructions": "ROUGE-L instructions ↑",
}


def scores_table(found: Scores) -> str:
    """Markdown: one row an adapter, value and 95 % interval."""

    def cell(row: dict[str, Any] | None) -> str:
        return f"{row['value']:.2f} ({row['ci_low']:.2f}–{row['ci_high']:.2f})" if row else "–"

    about = {"base": model.NAME} | {name: demo.description for name, demo in ADAPTERS.items()}
    lines = [f"| adapter | trained on | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---|" * len(COLUMNS)]
    for name in about:
        if name in found:
            cells = " | ".join(cell(found[name].get(column)) for column in COLUMNS)
            lines.append(f"| {name} | {about[name]} | {cells} |")
    return "\n".join(lines)


def tell(readme: Path) -> None:
    """Write the scores into the adapters' records and between the marks in the README."""
    found = scores()
    for name, demo in ADAPTERS.items():
        record = json.loads((demo.path / RECORD).read_text())
        kept = {column: round(row["value"], 4) for column, row in found.get(name, {}).items() if column in COLUMNS}
        write_json(demo.path / RECORD, record | {"scores": kept})
    before, mark, rest = readme.read_text().partition("<!-- scores")
    head, _, after = rest.partition("-->")
    _, end, tail = after.partition("<!-- /scores -->")
    write_file(readme, f"{before}{mark}{head}-->\n{scores_table(found)}\n{end}{tail}")


if __name__ == "__main__":
    print(f"{ship(Workspace.default())} runs")
    tell(DATA.parents[1] / "README.md")
