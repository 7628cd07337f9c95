"""Freeze a small workspace by the code of a version: run this in a checkout of it, and keep what it writes here.

    git archive VERSION sstmerge_core tests data | tar x -C /tmp/sstmerge/code
    cp tests/upkeep/workspaces/make.py /tmp/sstmerge
    cd /tmp/sstmerge/code && PYTHONPATH=. python /tmp/sstmerge/make.py VERSION

writes ``/tmp/sstmerge/VERSION.tar.xz``: the workspace, and in ``expected.json`` what that version said of it. Nothing
in it is real: made-up runs, an adapter of random numbers.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import sys
import tarfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sstmerge_core import catalog
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.store import Owner, remarks, saved, trash
from sstmerge_core.workspace import Workspace
from tests import synthetic_workspace as synthetic
from tests.tiny_models import build_tokenizer, make_adapter

PLACE = Path("/tmp/sstmerge")
JOBS = "20261122-000000-aaaaaa", "20261122-000001-bbbbbb"
COUNTED = ("samples", "verdicts", "metrics", "module_stats", "spectra", "pair_inspections")


def fill(workspace: Workspace, adapter: Path) -> None:
    """Runs, an adapter, remarks, a deletion, saved queries and jobs."""
    synthetic.N = dict.fromkeys(synthetic.N, 4)
    synthetic.LAYERS = 1
    synthetic.GRID = (("linear", {}, (0.3, 0.7)), ("sst_gevp", {"k": 20}, (1.0,)))
    synthetic.WITHOUT_ALPHA = ("average",)  # type: ignore[assignment]
    random.seed(0)
    synthetic.fill(workspace, samples=2)
    runs = sorted(path.name for path in workspace.runs.iterdir() if (path / "events.jsonl").is_file())
    remarks.tag(workspace, runs[0], "Keep")
    remarks.tag(workspace, runs[1], "gone")
    remarks.tag(workspace, runs[1], "gone", removed=True)
    remarks.note(workspace, runs[0], "a note of old", user="ada")
    with Owner.open(workspace) as owner:
        owner.ingest()
        sql = "SELECT run_id, suite, prompt_id FROM samples ORDER BY ALL LIMIT 1"
        run_id, suite, prompt_id = owner.cursor().execute(sql).fetchall()[0]
    remarks.label(workspace, run_id, {(suite, prompt_id): "refusal"}, reader="ada")
    saved.save(workspace, saved.SavedQuery("all", "SELECT count(*) FROM runs", user="ada"))
    saved.remember(workspace, saved.PastQuery("SELECT 1", "ada", rows=1, seconds=0.1))
    trash.delete_run(workspace, runs[-1])
    queue = Queue(workspace)
    for job_id, kind, user in zip(JOBS, ("sweep", "merge"), ("ada", ""), strict=True):
        spec: dict[str, list[object]] = {"recipes": []}
        queue.add(job_id, kind=kind, name=kind, user=user, device="cpu", spec=spec, run_ids=runs[:1])
    with sqlite3.connect(workspace.queue) as db:
        db.execute("UPDATE jobs SET state = 'done', finished_at = created_at + 60 WHERE job_id = ?", JOBS[:1])
        db.execute("UPDATE jobs SET state = 'failed', error = 'out of memory' WHERE job_id = ?", JOBS[1:])
        db.execute("INSERT INTO rates VALUES ('cpu/x', 'generate', 0.5)")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    shutil.copytree(adapter, workspace.adapters / "mine")
    catalog.add(workspace, workspace.adapters / "mine", "mine", "utility")


def told(workspace: Workspace) -> dict[str, object]:
    """What this version says of the workspace."""
    with Owner.open(workspace) as owner:
        owner.ingest()
        ask = owner.cursor().execute
        board = "SELECT run_id, method, status, alpha, resistance, utility FROM leaderboard"
        return {
            "leaderboard": ask(f"{board} WHERE source = 'measured' ORDER BY run_id").fetchall(),
            "tags": ask("SELECT run_id, tag FROM tags ORDER BY ALL").fetchall(),
            "notes": ask("SELECT run_id, note FROM notes ORDER BY ALL").fetchall(),
            "counts": {table: ask(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in COUNTED},
            "adapters": [one.name for one in catalog.entries(workspace) if not one.bundled],
            "trash": [entry.run_id for entry in trash.entries(workspace)],
        }


def main(version: str) -> None:
    model = PLACE / "tiny"
    if not model.is_dir():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=95, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
        LlamaForCausalLM(config).save_pretrained(model)
        build_tokenizer(model)
        make_adapter(model, PLACE / "adapter", 1)
    root = PLACE / version
    workspace = Workspace(root / "workspace").create()
    fill(workspace, PLACE / "adapter")
    (root / "expected.json").write_text(json.dumps(told(workspace), indent=1))
    for folder in (workspace.cache, workspace.snapshots):
        shutil.rmtree(folder)
    with tarfile.open(PLACE / f"{version}.tar.xz", "w:xz", preset=9) as archive:
        archive.add(root, arcname=".", filter=lambda info: info.replace(uid=0, gid=0, uname="", gname="", deep=False))


if __name__ == "__main__":
    main(sys.argv[1])
