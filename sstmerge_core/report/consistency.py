"""Where the tables of one report contradict each other."""

from __future__ import annotations

import pandas as pd

from sstmerge_core import words
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.report import tables
from sstmerge_core.report.document import Block, Section, Table, listed, point_link, run_link
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.points import records


def consistency(chapter: Chapter) -> Section | None:
    """Where a report's tables contradict each other."""
    if not chapter.reported:
        return None
    both = tables.disagreements(chapter.other_tables)
    blocks: list[Block] = []
    for table, rows in both.groupby("table"):
        differing = rows[rows["differs"]]
        blocks.append(_disagreement_sentence(str(table), rows, differing))
        if len(differing):
            blocks.append(_disagreement_table(differing))
    printed = chapter.other_tables[chapter.other_tables["reported_table"] == "top10"]
    if len(printed):
        blocks.append(_left_out_sentence(chapter, printed))
    return Section("The report against itself", tuple(blocks), level=3) if blocks else None


def _disagreement_sentence(table: str, rows: pd.DataFrame, differing: pd.DataFrame) -> str:
    name = f"`{table}`"
    if differing.empty:
        return f"The table {name} repeats {len(rows)} settings of the main table, all with the same figures."
    gaps = [
        f"{MEASURES[name].title.lower()} by up to {100 * differing[f'{name}_gap'].max():.2f} points"
        for name in ("resistance", "utility")
    ]
    ks = sorted({f"k={k:.0f}" for k in differing["k"].dropna()})
    return (
        f"Two different tables: {name} gives {len(rows)} settings of the main table again ({', '.join(ks) or 'no k'}), "
        f"{len(differing)} of them with other figures ({listed(gaps)})."
    )


def _disagreement_table(differing: pd.DataFrame) -> Table:
    head = ("Setting", "Resistance: main table", "other table", "Utility: main table", "other table")
    rows = []
    for row in records(differing):
        own, other = str(row["run_id"]), str(row["other_run_id"])
        cells = [run_link(own, str(row["label"]))]
        for measure in ("resistance", "utility"):
            cells += [run_link(own, f"{row[measure]:.4f}"), run_link(other, f"{row[f'other_{measure}']:.4f}")]
        rows.append(tuple(cells))
    return Table(head, tuple(rows))


def _left_out_sentence(chapter: Chapter, printed: pd.DataFrame) -> str:
    missing = tables.left_out_of(printed, chapter.found)
    if missing.empty:
        return f"The report's own top-{len(printed)} table holds the greatest sums of its main table."
    shown = (f"{point_link(row)} ({row['total']:.4f})" for row in records(missing))
    count = words.count(len(missing), "setting")
    return (
        f"The report's own top-{len(printed)} table leaves out {count} of its main table with a greater sum than its "
        f"last row: {listed(shown)}."
    )
