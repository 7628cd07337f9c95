from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sstmerge_core import catalog, jobs, worker
from sstmerge_core.errors import DataError
from sstmerge_core.jobs import dispatch
from sstmerge_core.jobs.process import Process
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.train import TrainingSettings, checkpoint, training_record
from sstmerge_core.worker import training
from sstmerge_core.worker.training import Training
from sstmerge_core.workspace import Workspace
from tests.there import there


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose jobs are done by this process, when the test calls `work`."""
    monkeypatch.setenv("SSTMERGE_DEVICE", "cpu")
    monkeypatch.setattr(dispatch.local, "start", lambda *_, **__: Process.of(os.getpid()))
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    return Workspace(tmp_path / "w").create()


@pytest.fixture
def spec(here: Workspace, tiny_base: Path, tmp_path: Path) -> Training:
    lines = [json.dumps({"prompt": f"w{i} w{i + 1}", "response": f"w{3 * i}"}) for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    base = catalog.add_base(here, tiny_base)
    settings = TrainingSettings(epochs=3, batch_size=8)
    given = Training(base=base.source, files=(str(tmp_path / "rows.jsonl"),), settings=settings, name="A8")
    given = given.model_copy(update={"validation_share": 0.3, "role": "safety", "suite": "harmful"})
    return given.model_copy(update={"rows_sha256": given.read().sha256})


def submit(here: Workspace, spec: Training) -> str:
    return jobs.submit(here, [], name="Train A8", kind="train", training=spec.model_dump(mode="json"))


def work(here: Workspace, job_id: str) -> int:
    return worker.main(["--workspace", str(here.root), "--job", job_id])


def test_a_training_job_puts_its_adapter_on_the_shelf_and_learns_how_long_a_row_takes(
    here: Workspace, spec: Training, capsys: pytest.CaptureFixture
) -> None:
    data = spec.read()
    before = training.plan(here, spec, data)
    assert before.problems == [] and before.known is None and before.steps == spec.settings.steps(len(data.rows))
    job_id = submit(here, spec)
    assert training.told(here, job_id) == spec
    assert work(here, job_id) == 0
    entry = catalog.find(here, "A8")
    assert (entry.role, entry.suite, entry.path) == ("safety", "harmful", here.adapters / "A8")
    record = training_record(entry.path)
    assert len(record["loss"]) == before.steps and len(record["validation"]) == 3
    assert "first:train" in Queue(here).rates(f"cpu/{spec.base.sha256[:12]}")
    assert f"step {before.steps}/{before.steps}, loss" in capsys.readouterr().out
    after = training.plan(here, spec, data)
    assert after.known == entry and after.problems == []
    weights = (entry.path / "adapter_model.safetensors").stat().st_mtime_ns
    assert work(here, submit(here, spec)) == 0
    assert (entry.path / "adapter_model.safetensors").stat().st_mtime_ns == weights, "it was trained again"


def test_a_cancelled_training_job_goes_on_where_it_stopped(
    here: Workspace, spec: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(here, spec)
    report = worker.Monitor.report

    def cancel_in_the_middle(self: worker.Monitor, point: int, stage: str, done: float, total: float) -> None:
        report(self, point, stage, done, total)
        if stage == "train" and done >= total / 3:
            self.cancel()

    monkeypatch.setattr(worker.Monitor, "report", cancel_in_the_middle)
    assert work(here, job_id) == 1
    curve = checkpoint.read_curve(here.adapters / "A8")
    assert there(jobs.job(here, job_id)).state == "cancelled"
    assert curve is not None and not (here.adapters / "A8").exists()
    monkeypatch.setattr(worker.Monitor, "report", report)
    jobs.resume(here, job_id)
    assert work(here, job_id) == 0
    record = training_record(catalog.find(here, "A8").path)
    assert record["loss"][: len(curve["loss"])] == curve["loss"] and len(record["loss"]) == curve["steps"]
    assert not checkpoint.folder(here.adapters / "A8").exists()


def test_rows_that_changed_after_the_launch_are_not_trained_on(here: Workspace, spec: Training) -> None:
    job_id = submit(here, spec)
    with open(spec.files[0], "a") as file:
        file.write('\n{"prompt": "new", "response": "row"}\n')
    assert work(here, job_id) == 1
    assert "changed since the training was launched" in there(there(jobs.job(here, job_id)).error)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ".."}, "not usable as an adapter's name"),
        ({"name": "A5"}, "taken by another adapter"),
        ({"settings": TrainingSettings(r=0)}, "setting r: is 0"),
        ({"settings": TrainingSettings(epochs=0.001)}, "not one row would be learnt"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_is_queued(
    here: Workspace, spec: Training, changes: dict, said: str
) -> None:
    found = training.plan(here, spec.model_copy(update=changes), spec.read())
    assert said in "\n".join(map(str, found.problems))
    with pytest.raises(DataError, match=said):
        changed = spec.model_copy(update=changes).model_dump(mode="json")
        training.run(here, changed, report=lambda *_: None, should_cancel=lambda: False)


def test_a_folder_that_holds_something_else_is_not_written_over(here: Workspace, spec: Training) -> None:
    other = here.adapters / "A8"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    (problem,) = training.plan(here, spec, spec.read()).problems
    assert "holds another adapter" in problem.fault and (other / "notes.txt").read_text() == "mine"
