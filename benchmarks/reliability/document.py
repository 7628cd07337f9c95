"""Writes what was tried and found into docs/reliability.md; no figure there is written by hand."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.browser import ROOT
from sstmerge_core.workspace import write_file

Row = dict[str, Any]
PATH = ROOT / "docs" / "reliability.md"
SECTIONS = ("faults", "inputs", "load")
HEAD = """# What it bears

Written by the programs that tried it, which `make reliability` starts one after the other. No figure here is written by
hand; every trial of the faults is a line of `results.jsonl` in the folder that they work in.

"""
KINDS = ("lost", "doubled", "bits", "database", "hung", "words", "page", "traceback", "other")
ABOUT = """## Faults

After each fault: the whole lines of every event file are still there and unchanged, no batch of answers is twice, what
is recorded equals what an undisturbed job records, the database that lived through it equals one made from the event
files alone, and the page that would show it says so in words, without an exception. A job that was killed is resumed
until it is done; answers, verdicts, metrics, statistics and the bytes of its adapters must then equal those of a job
that nobody killed. The work is done by a random two-layer model; kills come at a seeded line of the stage's code, from
outside after a seeded time, or in the middle of a line of an event file. "By time" counts from when the stage began: it
may have ended by then. The workspace lies on a small disk in memory. Servers are Streamlit's own, visited by the
protocol of browsers; what they launch is made up, what workers do in the other trials is the real work.

Experiments are killed as jobs and as commands, up to three times each: their rows, sentences, runs and files must be
those of one that nobody killed. Of the Playground the process with the model and the dashboard that asks it are killed
in mid answer: no device stays taken, no file is half-written, and the same prompt gets the same answers again.

Not tried: a machine that loses power, workers on other machines.
Lines of event files end in a checksum: one that a flipped bit has changed is told as unreadable on its run's page, and
never read as something else.
"""


def read(results: Path) -> list[Row]:
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text().splitlines() if line.endswith("}")]


def write(rows: list[Row], seed: int) -> None:
    """Put the section of the faults into the document."""
    section("faults", "\n".join([ABOUT, _machine(seed), *_tables(rows)]))


def section(name: str, text: str) -> None:
    """Replace one section of the document; the others stay as they are."""
    before = PATH.read_text() if PATH.is_file() else ""
    parts = {one: _between(before, one) for one in SECTIONS} | {name: text.strip() + "\n"}
    told = [f"<!-- {one} -->\n{text}<!-- /{one} -->\n" for one, text in parts.items() if text]
    write_file(PATH, HEAD + "\n".join(told))


def machine() -> str:
    """What else a figure depends on, in a sentence."""
    load = os.getloadavg()[1]
    return (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}; load of the machine over the last five minutes when this was written: "
        f"{load:.1f}, other work included"
    )


def _between(text: str, name: str) -> str:
    _, found, rest = text.partition(f"<!-- {name} -->\n")
    return rest.partition(f"<!-- /{name} -->")[0] if found else ""


def _machine(seed: int) -> str:
    return f"Seed {seed}. {machine()}.\n"


def _tables(rows: list[Row]) -> Iterable[str]:
    kills = [row for row in rows if row["kind"] == "kill"]
    resumed = [row for row in rows if row["kind"] == "resumed"]
    generation = sum(row["stage"] in ("generation",) for row in kills)
    yield (
        f"**{len(kills)} kills** ({generation} of them within a suite's generation), {len(resumed)} jobs resumed to "
        f"their end and compared; {len(rows) - len(kills) - len(resumed)} other trials.\n"
    )
    yield _table("found", KINDS, rows)
    yield "### Kills\n"
    yield "| what | stage | kills | by line | by time | in a line | after the last page | with faults |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for actor, stage in sorted({(row["actor"], row["stage"]) for row in kills}):
        own = [row for row in kills if (row["actor"], row["stage"]) == (actor, stage)]
        modes = Counter(row["mode"] for row in own)
        cells = [modes[mode] for mode in ("line", "time", "torn", "after the last page")]
        wrong = sum(bool(row["faults"]) for row in own)
        yield f"| {actor} | {stage} | {len(own)} | {' | '.join(map(str, cells))} | {wrong} |"
    wrong = sum(bool(row["faults"]) for row in resumed)
    yield f"| all of these | resumed to the end | {len(resumed)} | – | – | – | – | {wrong} |\n"
    yield "### Other faults\n"
    yield "| kind | where | tried | with faults |"
    yield "|---|---|---:|---:|"
    others = [row for row in rows if row["kind"] not in ("kill", "resumed")]
    for kind, stage in dict.fromkeys((row["kind"], _where(row)) for row in others):
        own = [row for row in others if (row["kind"], _where(row)) == (kind, stage)]
        ways = f" ({len({row.get('mode') for row in own})} ways)" if own[0].get("mode") else ""
        yield f"| {kind} | {stage}{ways} | {len(own)} | {sum(bool(row['faults']) for row in own)} |"
    full = [row for row in others if row["kind"] == "full disk"]
    if full:
        reached = sum(row["reached"] for row in full)
        yield f"\nThe disk was full in {reached} of {len(full)} trials; in the others the work ended before its place."
    else:
        yield "\nA full disk was not tried: no small one could be mounted here, or the suite was stopped before."
    yield ""


def _where(row: Row) -> str:
    return " ".join(filter(None, [row.get("actor"), row["stage"]])) or "both visited, the owner killed"


def _table(title: str, kinds: Iterable[str], rows: list[Row]) -> str:
    found: Counter[str] = Counter()
    for row in rows:
        for fault in row["faults"]:
            name = fault.partition(":")[0].split(" ")[0]
            found[name if name in KINDS else "other"] += 1
    head = f"| {' | '.join(kinds)} |\n|{'---:|' * len(list(kinds))}\n"
    return head + f"| {' | '.join(str(found[kind]) for kind in kinds)} |\n"
