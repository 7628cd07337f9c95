"""``sstmerge report``: the tables and statements of every pair, as Markdown, one HTML page, or a paper's appendix."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from sstmerge_core.cli.printing import connected
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.workspace import Workspace, write_file

ENDINGS = (".md", ".html", ".tex")


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    report = command("report", _report, "Write the report: tables, statements with intervals, claims checked.")
    report.add_argument("--source", choices=["measured", "reported"], help="default: both")
    report.add_argument("--pair", action="append", help="such as A5_A7, may be repeated; default: all")
    report.add_argument("--out", help="file that ends in .md, .html or .tex; default: Markdown to standard output")
    report.add_argument(
        "--app",
        default=os.environ.get("BASE_URL", "").strip() or "http://localhost:8501",
        help="address of the app that the links lead to; default: BASE_URL, else http://localhost:8501",
    )


def _report(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.report import html, latex
    from sstmerge_core.report.build import build
    from sstmerge_core.report.document import markdown

    out = Path(options.out) if options.out else None
    if out is not None and out.suffix.lower() not in ENDINGS:
        raise RecipeError(Problem(f"--out {out}", f"has the ending {out.suffix or 'none'}", "Use .md, .html or .tex."))
    connection = connected(workspace)
    try:
        connection.ingest()
        connection.publish()
        report = build(connection.cursor(), source=options.source, pairs=options.pair)
    finally:
        connection.close()
    if out is None:
        sys.stdout.write(markdown(report, app=options.app))
        return
    if out.suffix.lower() == ".tex":
        write_file(out, latex.document(report))
    else:
        make = html.page if out.suffix.lower() == ".html" else markdown
        write_file(out, make(report, app=options.app))
    print(out)
