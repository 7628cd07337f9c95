"""Streamlit's server, which has the first page's libraries and the database ready by the time that a browser asks.

Run as a script with Streamlit's own arguments: ``launch.py run app.py --server.port 8501``. A browser takes a second to
load the dashboard's scripts; the server, which would only begin to import when the first page is asked for, imports
meanwhile.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
FIRST = ("app.py", "pages/overview.py")
"""What is drawn first"""


def imported(file: Path) -> Iterator[str]:
    """The modules that a file's import statements name, those within functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def prepare() -> None:
    """Import what the first page will, and open the database. What fails here, fails in the page, which says why."""
    from streamlit.runtime import Runtime

    while not Runtime.exists():  # the server answers first
        time.sleep(0.02)
    for file in FIRST:
        for name in imported(TOP / file):
            with contextlib.suppress(Exception):  # most names of a module are no modules
                importlib.import_module(name)
    with contextlib.suppress(Exception):
        from studio import start

        start.take_in()


def main() -> None:
    from streamlit.web.cli import main as streamlit

    sys.path.insert(0, str(TOP))  # as Streamlit does it for app.py
    threading.Thread(target=prepare, name="prepare", daemon=True).start()
    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
