"""``sstmerge push``: a merged adapter or model into a repository of the Hugging Face hub."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sstmerge_core.workspace import Workspace


def register(command: Any) -> None:
    """Add the command; `command` makes a parser from name, function and description."""
    push = command("push", _push, "Send a run's adapter, or a folder, to the Hugging Face hub with its model card.")
    push.add_argument("what", metavar="RUN|DIR", help="a run's id, or a folder that `sstmerge merge` wrote")
    push.add_argument("repository", metavar="OWNER/NAME")
    push.add_argument("--public", action="store_true", help="default: private")
    push.add_argument("--update", action="store_true", help="add a commit where the repository is there already")
    push.add_argument("--message", default="", help="of the commit")
    push.add_argument("--dry-run", action="store_true", help="only show what would be sent, and the card")
    push.add_argument("--json", action="store_true")


def _push(options: argparse.Namespace, workspace: Workspace) -> None:
    from sstmerge_core.runs.push import plan, push

    given = {"public": options.public, "update": options.update, "message": options.message}
    planned = plan(workspace, options.what, options.repository, **given)
    told = {"repository": planned.repository, "private": planned.private, "files": planned.sizes, "url": planned.url}
    if not options.json:
        print("\n".join(planned.lines))
    if options.dry_run:
        print(json.dumps(told | {"pushed": False}) if options.json else f"\n{planned.card}\nNothing was sent.")
        return
    url = push(workspace, planned)
    print(json.dumps(told | {"pushed": True}) if options.json else url)
