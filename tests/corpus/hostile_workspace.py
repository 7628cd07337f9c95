"""A workspace in which every text that people, adapters or models gave is Markdown, HTML, an address and an icon."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.playground import conversation
from sstmerge_core.store import EventWriter, Owner, remarks, saved
from sstmerge_core.workspace import Workspace, write_json
from tests.rewritten import rewrite_events
from tests.synthetic_workspace import fill

PAYLOAD = (
    '![EVIL](https://evil.example/i.png)<img src="https://evil.example/x"><a href="https://evil.example">E</a>'
    "[E](https://evil.example) www.evil.example a@evil.example :material/home: :red[E] $E$"
)
DANGEROUS = (
    r"(?<!\\)!\[EVIL",
    r"(?<!\\)<img src",
    r"(?<!\\)<a href",
    r"(?<!\\)\[E\]",
    r"https://evil",
    r"www\.evil",
    r"a@evil",
    r":material/home",
    r"(?<!\\):red\[E",
)
"""What of the payload must not be in Markdown, as patterns"""
_TEXTS = {
    "label", "pair", "user", "text", "tag", "prompt", "response", "description", "error", "topic", "raw", "note",
    "base", "utility", "safety", "suite", "judge", "name", "fault", "where", "fix", "module", "version", "origin",
    "stage", "base_name", "prompt_id",
}  # fmt: skip
"""Fields of events that come from elsewhere"""
RUN_ID = 'r![EVIL](x)<img src="y">www.evil.example'
"""A folder of runs may be called anything without a slash"""


def _spoilt(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _spoilt(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_spoilt(one, key) for one in value]
    return f"{value}{PAYLOAD}" if isinstance(value, str) and key in _TEXTS and value else value


def spoil(path: Path) -> None:
    """Put the payload behind every text of an event file."""
    rewrite_events(path.parent, lambda event: _spoilt(event) | {"event": event["event"]})


def hostile(workspace: Workspace) -> tuple[Workspace, list[str], str, str]:
    """The workspace, its merged runs (the oddly named one first), a conversation and a job."""
    fill(workspace, samples=4)
    for folder in sorted(workspace.runs.iterdir()):
        remarks.tag(workspace, folder.name, f"E{PAYLOAD}"[: remarks.LONGEST_TAG])
        remarks.note(workspace, folder.name, PAYLOAD, user=PAYLOAD)
    for path in [*workspace.runs.glob("*/events.jsonl"), *workspace.pairs.glob("*/events.jsonl")]:
        spoil(path)
    merged = [
        folder for folder in sorted(workspace.runs.iterdir()) if '"linear"' in (folder / "events.jsonl").read_text()
    ]
    os.rename(merged[0], workspace.run(RUN_ID))
    os.rename(workspace.annotations / merged[0].name, workspace.annotations / RUN_ID)
    saved.save(workspace, saved.SavedQuery(PAYLOAD[:80], f"SELECT 1 AS \"{PAYLOAD}\", 'x' AS b", user=PAYLOAD))
    saved.remember(workspace, saved.PastQuery(f"SELECT '{PAYLOAD}' AS a", user=PAYLOAD, error=PAYLOAD))
    answer = conversation.Answer(title=PAYLOAD, alpha=None, text=PAYLOAD, ended="length")
    broken = conversation.Answer(title=PAYLOAD, alpha=1.0, problems=[dict.fromkeys(("where", "fault", "fix"), PAYLOAD)])
    talk = conversation.new()
    talk.turns.append(conversation.Turn(PAYLOAD, 16, answers={"base": answer, PAYLOAD: broken}))
    conversation.save(workspace, talk)
    (workspace.uploads / "abc").mkdir(parents=True)
    row = json.dumps({"prompt": PAYLOAD, "response": PAYLOAD, "topic": PAYLOAD, "split": PAYLOAD})
    (workspace.uploads / "abc" / f"{PAYLOAD.replace('/', '')}.jsonl").write_text(f"{row}\n")
    _suite(workspace)
    job = _jobs(workspace)
    with EventWriter(workspace.catalog) as events:
        base = workspace.root / "base"
        write_json(base / "config.json", {"architectures": [PAYLOAD]})
        events.write("base_added", sha256="b" * 64, name=f"base{PAYLOAD}", path=str(base))
    with Owner.open(workspace) as owner:
        owner.ingest()
        owner.publish()
    return workspace, [RUN_ID, *(folder.name for folder in merged[1:])], talk.id, job


def add_adapters(workspace: Workspace, folders: dict[str, Path], base: str) -> None:
    """Adapters that can be merged, whose every text is hostile."""
    for role, folder in folders.items():
        facts = dict(rank=4, alpha=8.0, modules=8, bytes=1_000, scores={PAYLOAD: 0.5, "resistance": 0.5})
        texts = dict(description=PAYLOAD, suite=PAYLOAD, origin=f"upload:{PAYLOAD}", tags=[PAYLOAD], base_name=base)
        with EventWriter(workspace.catalog) as events:
            events.write(
                "adapter_added", sha256=role * 9, name=f"{role}{PAYLOAD}", role=role, path=str(folder), **facts, **texts
            )


def _suite(workspace: Workspace) -> None:
    folder = workspace.root / "suites"
    folder.mkdir()
    (folder / "evil.yaml").write_text(f"name: other\ntitle: {json.dumps(PAYLOAD)}\n{json.dumps(PAYLOAD)}: 1\n")


def _jobs(workspace: Workspace) -> str:
    queue = Queue(workspace)
    told: dict[str, Any] = {"user": PAYLOAD, "device": "cpu", "spec": {}, "run_ids": []}
    for number, state in enumerate(("failed", "done", "running")):
        queue.add(f"job{number}", kind="merge", name=f"Merge {PAYLOAD}", **told)
        queue.start_one(lambda job_id, device: Process.of(os.getpid()))
        if state != "running":
            queue.end(f"job{number}", state, PAYLOAD if state == "failed" else None)
        else:
            said = [{"suite": PAYLOAD, "prompt": PAYLOAD, "response": PAYLOAD, "label": PAYLOAD}]
            queue.beat("job2", stage=PAYLOAD, answers=json.dumps(said))
    queue.add("job3", kind="merge", name=f"Merge {PAYLOAD}", **told)
    (workspace.logs / "job0.log").write_text(f"{PAYLOAD}\n{time.time()}\n")
    return "job2"
