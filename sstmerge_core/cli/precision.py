"""``sstmerge precision``: a run measured again with its base in 8 and 4 bits, and the figures side by side."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sstmerge_core.cli.printing import connected, line, progress, table
from sstmerge_core.cli.records import ingest
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    about = "Measure a run again with its base in 8 and 4 bits, and tell resistance, over-refusal and utility of each."
    parser = command("precision", _precision, about)
    parser.add_argument("run_id", metavar="RUN")
    parser.add_argument("--bits", default="8,4", metavar="BITS", help="8, 4, or both with a comma, default both")
    parser.add_argument("--only-show", action="store_true", help="measure nothing, tell what was measured already")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object a precision and figure")


def _precision(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.analysis import precision
    from sstmerge_core.builder import in_bits
    from sstmerge_core.plots import precisions
    from sstmerge_core.recipe import record, validated
    from sstmerge_core.store import queries

    started = record.started(workspace.run(options.run_id))
    if started is None:
        raise RecipeError(Problem(f"run {options.run_id}", "is not in this workspace", "`sstmerge db` lists its runs."))
    known = validated(started["recipe"], f"run {options.run_id}")
    wanted = [few for few in in_bits.BITS if str(few) in options.bits.replace(" ", "").split(",")]
    if not wanted or len(wanted) != len(options.bits.split(",")):
        raise RecipeError(Problem(f"--bits {options.bits}", "is neither 8 nor 4", "Use 8, 4 or 8,4."))
    if not options.only_show:
        from sstmerge_core.runs.execute import execute

        recipes = [in_bits.recipe(known, few, workspace) for few in wanted]
        try:
            execute(recipes, workspace, report=progress(recipes), device=options.device)
        finally:
            line("", True)
    ingest(workspace)
    with connected(workspace) as store:
        cursor = store.cursor()
        beside = precision.beside(options.run_id, queries.same_setting(cursor, options.run_id))
        found = precision.figures(beside, queries.runs_by_id(cursor, list(beside.values())))
    if options.json:
        for row in found.to_dict("records"):
            print(json.dumps({name: None if value != value else value for name, value in row.items()}))
        return
    shown = precisions.side_by_side(found)
    table(list(shown.columns), [list(map(str, row)) for row in shown.itertuples(index=False)])
