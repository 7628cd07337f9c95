"""`rescore` as a job of the queue: another judge on the stored answers of a run, asked for from a page. No torch.

A metric that an encoder computes of them is asked for likewise, its name in the judge's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sstmerge_core import access
from sstmerge_core.errors import Cancelled
from sstmerge_core.evaluate import encoders
from sstmerge_core.evaluate.judges import get_judge, is_model, judge_names
from sstmerge_core.jobs import default_device, enqueue
from sstmerge_core.jobs.estimate import START, Estimator
from sstmerge_core.jobs.model import INSPECTION, Job
from sstmerge_core.jobs.queue import Queue
from sstmerge_core.recipe.record import answered
from sstmerge_core.runs.rescore import rescore, score_by_encoder
from sstmerge_core.workspace import Workspace

KIND = "rescore"


def submit(workspace: Workspace, run_id: str, judge: str, *, label: str = "", user: str = "") -> str:
    """Queue the re-scoring of a run; returns the job's id.

    Judges without a model go past the queue of the device, as they need none. Raises JobError where the run is not
    here, not finished or has no answers, RecipeError for an unknown judge; whether a judge's model is on this machine
    the job finds out.
    """
    access.named(judge)
    if _needs_no_model(judge):
        get_judge(judge)
    answered(workspace, run_id)
    spec = {"rescore": {"run_id": run_id, "judge": judge}}
    return enqueue(workspace, KIND, f"{judge} on {label or run_id}", spec, device=_device(judge), user=user)


def run(
    workspace: Workspace,
    spec: Mapping[str, str],
    *,
    report: Callable[[int, str, float, float], None],
    should_cancel: Callable[[], bool],
) -> None:
    """Do it, in the worker. Raises what `rescore` and `get_judge` raise, and Cancelled between two answers' batches."""
    run_id, judge = spec["run_id"], spec["judge"]

    def progress(done: int, total: int) -> None:
        report(0, f"judge:{judge}", done, max(1, total))
        if should_cancel():
            raise Cancelled(f"re-scoring of {run_id}")

    if encoders.is_metric(judge):
        rows = score_by_encoder(workspace, run_id, encoders.scorer(judge), progress)
        print(f"{len(rows)} metrics by {rows[0]['judge']}", flush=True)
        return
    found = rescore(workspace, run_id, get_judge(judge), progress)
    print(f"{found.judged} answers judged, {len(found.metrics)} metrics", flush=True)


def predict(workspace: Workspace, judge: str, answers: int) -> float | None:
    """Seconds from asking to the last verdict; None where no model like this has judged anything here yet."""
    stage = f"judge:{judge}"
    rates = Queue(workspace).rates(f"{_device(judge)}/") if workspace.queue.exists() else {}
    if not _needs_no_model(judge) and stage not in rates and f"first:{stage}" not in rates:
        return None
    return Estimator(plan=[{START: 1.0, stage: float(answers)}], started=0.0, history=rates).remaining(0.0)


def last(workspace: Workspace, run_id: str) -> Job | None:
    """The newest re-scoring of a run among the latest jobs."""
    if not workspace.queue.exists():
        return None
    queue = Queue(workspace)
    found = (job for job in queue.jobs(50) if job.kind == KIND)
    return next((job for job in found if queue.spec(job.job_id)["rescore"]["run_id"] == run_id), None)


def _device(judge: str) -> str:
    elsewhere = _needs_no_model(judge) or judge.partition(":")[0] == "endpoint"
    return INSPECTION if elsewhere else default_device()


def _needs_no_model(judge: str) -> bool:
    """Also of a judge that does not exist, which `get_judge` names the neighbours of."""
    return judge in judge_names() or not (is_model(judge) or encoders.is_metric(judge))
