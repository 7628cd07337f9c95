"""What must hold after a fault: nothing lost, nothing doubled, the same bits, one truth, a page with words."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from sstmerge_core.adapters.read import WEIGHTS
from sstmerge_core.store.events import FILE_NAME, last_status, read_events, read_lines
from sstmerge_core.workspace import Workspace

Results = dict[str, Any]
Faults = list[str]


def results(workspace: Workspace, run_id: str) -> Results:
    """Everything of a run that must not depend on interruptions: answers, verdicts, metrics, plans, statistics, bytes.

    Of what a resumed run says again the last counts.
    """
    found: Results = {}
    for event in read_events(workspace.run(run_id)):
        name = event["event"]
        if name == "samples":
            found[f"samples {event['suite']} {event['batch']}"] = event["rows"]
        elif name in ("verdicts", "metrics", "plan", "module_stats", "spectrum", "artifact"):
            about = {key: value for key, value in event.items() if key != "t"}
            found[f"{name} {event.get('suite', '')} {event.get('module', '')}"] = about
    weights = workspace.merged_adapter(run_id) / WEIGHTS
    if weights.is_file():
        found["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return found


def whole_lines(workspace: Workspace) -> dict[str, bytes]:
    """The complete lines of every event file."""
    return {name: b"".join(line for _, line in read_lines(workspace.root / name)) for name in workspace.event_files()}


def kept(before: dict[str, bytes], workspace: Workspace) -> Faults:
    """Nothing that was written whole is gone or changed."""
    now = whole_lines(workspace)
    return [
        f"lost: {name} does not begin as it did" for name in before if not now.get(name, b"").startswith(before[name])
    ]


def doubled(workspace: Workspace) -> Faults:
    found = []
    for folder in sorted(workspace.runs.iterdir()):
        events = list(read_events(folder))
        batches = Counter((event["suite"], event["batch"]) for event in events if event["event"] == "samples")
        found += [f"doubled: {folder.name} has batch {key} {n} times" for key, n in batches.items() if n > 1]
        ends = sum(event["event"] == "run_finished" for event in events)
        if ends > 1:
            found.append(f"doubled: {folder.name} finished {ends} times")
    return found


def true_so_far(workspace: Workspace, straight: dict[str, Results], *, finished: bool) -> Faults:
    """What is recorded is what an unkilled job records; `finished`: and all of it."""
    found = []
    for run_id, wanted in straight.items():
        own = results(workspace, run_id)
        if finished and last_status(workspace.run(run_id)) != "finished":
            found.append(f"lost: {run_id} is {last_status(workspace.run(run_id))} after the resume")
        ended = finished or last_status(workspace.run(run_id)) == "finished"
        # a merge that was killed is written again: until the run has ended, its folder may be that of any moment
        keys = wanted.keys() | own.keys() if ended else own.keys() - {"weights"}
        found += [f"bits: {run_id} differs in {key}" for key in sorted(keys) if own.get(key) != wanted.get(key)]
    return found


def tables(cursor: Any) -> dict[str, str]:
    """A hash of every table's rows."""
    names = [name for (name,) in cursor.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
    found = {}
    for name in names:
        rows = cursor.execute(f'SELECT * FROM "{name}" ORDER BY ALL').fetchall()
        found[name] = f"{len(rows)} rows {hashlib.sha256(repr(rows).encode()).hexdigest()[:16]}"
    return found


def one_truth(workspace: Workspace, scratch: Path) -> Faults:
    """The database that went through everything says what a new one says that is made from the event files alone."""
    from sstmerge_core.errors import StoreError
    from sstmerge_core.store import Owner

    try:
        with Owner.open(workspace) as owner:
            owner.ingest()
            with contextlib.closing(owner.cursor()) as cursor:
                own = tables(cursor)
    except StoreError as error:
        return [f"database: {error}"]
    other = Workspace(scratch).create()
    for name in workspace.event_files():
        target = scratch / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workspace.root / name, target)
    with Owner.open(other) as owner:
        owner.ingest()
        with contextlib.closing(owner.cursor()) as cursor:
            again = tables(cursor)
    shutil.rmtree(scratch)
    return [
        f"database: {name} has {own.get(name)}, from the event files {again.get(name)}"
        for name in sorted(own.keys() | again.keys())
        if own.get(name) != again.get(name)
    ]


def page(workspace: Workspace, name: str, **query: str) -> tuple[str, Faults]:
    """What a page says in its boxes, captions and badges; an exception on it is a fault."""
    import os

    from streamlit import config
    from streamlit.testing.v1 import AppTest

    from benchmarks.browser import ROOT

    os.environ["SSTMERGE_WORKSPACE"] = str(workspace.root)
    config.set_option("client.showErrorDetails", "full")  # an exception is told with what it said
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app = app.run() if name == "overview" else app.switch_page(f"pages/{name}.py").run()
    boxes = [box.value for kind in (app.error, app.warning, app.info, app.caption, app.markdown) for box in kind]
    boxes += [button.label for button in app.button]
    said = " ".join(boxes).replace("\\", "").replace("\u2060", "")
    return said, [f"page: {name} shows {error.message[:300]} {error.stack_trace}" for error in app.exception]


def run_events(workspace: Workspace, run_id: str) -> Path:
    return workspace.run(run_id) / FILE_NAME


def noise(text: str) -> Faults:
    """A traceback in a log, where a sentence was due: its end, without colours and frames."""
    text = re.sub(r"\x1b\[[0-9;]*m|[─│╭╮╰╯]|(?<=  ) +", "", text)
    return [f"traceback: {text[text.index('Traceback') :][-4000:]}"] if "Traceback" in text else []


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
