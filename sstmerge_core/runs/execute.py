"""Carry out recipes: gradients, merge, answers, verdicts, metrics, each recorded as an event and resumable.

Runs in the worker and, for the command line, in the foreground. Nothing here touches DuckDB.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import adapters, methods, metrics
from sstmerge_core.adapters.base_weights import base_weights
from sstmerge_core.builder.preflight import is_finished
from sstmerge_core.builder.recipe_file import Output
from sstmerge_core.errors import Cancelled, DataError, JobError, Problem, SSTMergeError, disk_problem
from sstmerge_core.evaluate import encoders, metric_rows
from sstmerge_core.evaluate.judge import Judge, judge_samples
from sstmerge_core.evaluate.judges import get_judge
from sstmerge_core.evaluate.metric_rows import refusal_outcomes
from sstmerge_core.jobs.model import Onlooker
from sstmerge_core.jobs.plan import fit_units, importance_units, inputs_units
from sstmerge_core.merge import Merged, budget, merge
from sstmerge_core.metrics.labels import DEFAULT_JUDGE
from sstmerge_core.models.device import peak_memory, share_the_machine
from sstmerge_core.recipe import Recipe, Source, Suite, TooLong, record
from sstmerge_core.recipe.record import RunRecord
from sstmerge_core.runs import artifact, fit_stage, keeping, watched
from sstmerge_core.runs.located import located
from sstmerge_core.runs.session import (
    Report,
    Session,
    check_base,
    chosen_device,
    planned_attack,
    planned_rows,
    unchanged,
)
from sstmerge_core.store.events import EventWriter
from sstmerge_core.words import count
from sstmerge_core.workspace import Workspace

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters.dense import WrittenModel
    from sstmerge_core.models.resident import Answering

FETCH = "fetch"
"""The stage in which inputs come from the content store; its units are MiB"""


def execute(
    recipes: Sequence[Recipe],
    workspace: Workspace,
    *,
    report: Report = lambda point, stage, done, total: None,
    tell: Callable[[str], None] = lambda part: None,
    should_cancel: Callable[[], bool] = lambda: False,
    onlooker: Onlooker | None = None,
    user: str = "",
    job_id: str = "",
    device: str = "auto",
    session: Session | None = None,
) -> None:
    """Carry out `recipes` in order; finished ones are skipped, half-done ones resumed.

    `tell` is told which part of a point the stages that follow belong to: the reference, then the merge; `onlooker`
    what is too fine for reports. `session` is what an earlier call left in memory, for callers that come back (then
    `device` is its own). A point that fails on the user's input does not stop the others. Raises JobError naming the
    failed ones at the end, Cancelled as soon as `should_cancel` says so.
    """
    share_the_machine()
    left_open = session is not None
    session = session or Session(workspace, chosen_device(device, recipes))
    session.user, session.job_id, session.report, session.should_cancel = user, job_id, report, should_cancel
    session.onlooker = onlooker or Onlooker()
    failed: list[Problem] = []
    try:
        for session.point, recipe in enumerate(recipes):
            try:
                base = recipe.reference
                first = base is not None and not is_finished(workspace, base) and base not in recipes[: session.point]
                if base is not None and first:
                    tell(f"1/2 reference: {base.pair} alone")
                    run(base, session)
                tell("2/2 your merge" if first else "")
                run(recipe, session)
            except Cancelled:
                raise
            except SSTMergeError as error:
                failed += error.problems
    finally:
        if not left_open:
            session.close()
    if failed:
        raise JobError(failed)


def opened(recipes: Sequence[Recipe], workspace: Workspace, device: str = "auto") -> Session:
    """What a worker keeps in memory from one call of `execute` to the next. Raises DataError for a device not here."""
    share_the_machine()
    return Session(workspace, chosen_device(device, recipes))


def run(recipe: Recipe, session: Session) -> None:
    """Carry out one recipe, or what is left of it; its event file says what happened."""
    if is_finished(session.workspace, recipe):
        if keeping.asked_to_stay(recipe, session.workspace):
            _remade(located(recipe, session.workspace, partial(session.progress, FETCH)), session)
        return
    folder = session.workspace.run(recipe.run_id)
    started = time.monotonic()
    with EventWriter(folder) as events:
        past = record.read(folder)
        events.write("run_started", **_started(recipe, session))
        try:
            recipe = located(recipe, session.workspace, partial(session.progress, FETCH))
            session.kept(recipe)  # refuses what the recipe says nothing of, before any work
            merged = _merge_stage(recipe, session, events, past)
            if recipe.evaluation:
                _evaluate_stages(recipe, session, events, past, merged)
        except Cancelled:
            events.write("run_cancelled")
            raise
        except Exception as error:
            problems = error.problems if isinstance(error, SSTMergeError) else ()
            if (disk := disk_problem(error, str(folder))) is not None:
                problems = (disk,)
            message = "\n".join(map(str, problems)) if problems else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a disk that is full has no room for this either
                events.write("run_failed", error=message, problems=[vars(problem) for problem in problems])
            raise
        events.write(
            "run_finished",
            seconds=time.monotonic() - started + past.generating_seconds,
            peak_memory_bytes=peak_memory(session.device),
        )
    keeping.settle(recipe, session.workspace)


def _merge_stage(recipe: Recipe, session: Session, events: EventWriter, past: RunRecord) -> Merged:
    """Merge and write the adapter. Always done again on resume: it is quick and gives the same bits."""
    entry = methods.get(recipe.method)
    if recipe.calibration is not None:
        begun = time.monotonic()
        units = _looked_at(recipe, session)
        events.write("stage", stage=entry.stage, status="done", seconds=time.monotonic() - begun, units=units, note="")
    session.progress("merge", 0, 1)
    begun = time.monotonic()
    merged = merge_now(recipe, session, events, past)
    statistics = list(merged.statistics)
    if entry.kind != "reference":
        folder = session.workspace.merged_adapter(recipe.run_id)
        inputs = session.inputs(recipe)
        written, errors = artifact.write_adapter(recipe, inputs, lambda: merged, folder, Output())
        statistics += errors
        about = {"name": "adapter", "path": "artifacts/adapter", "sha256": written.sha256, "bytes": written.bytes}
        events.write("artifact", **about, **({"keep": recipe.artifacts} if recipe.artifacts != "always" else {}))
    for module, eigenvalues in merged.spectra.items():
        events.write("spectrum", module=module, eigenvalues=eigenvalues)
    if statistics:
        events.write("module_stats", rows=statistics)
    events.write("stage", stage="merge", status="done", seconds=time.monotonic() - begun, units=1, note="")
    session.progress("merge", 1, 1)
    return merged


def _looked_at(recipe: Recipe, session: Session) -> int:
    """Have ready what the method learns from samples; how many were looked at."""
    entry = methods.get(recipe.method)
    if entry.needs_fisher:
        calibrated = session.calibrated(recipe)
        return len(calibrated.harm) + len(calibrated.benign)
    if entry.fits:
        fit_stage.fitted(recipe, session)
        return fit_units(recipe)
    if entry.needs_inputs:
        session.inputs_seen(recipe)
        return inputs_units(recipe)
    session.elected(recipe)
    return importance_units(recipe)


def merge_now(
    recipe: Recipe,
    session: Session,
    events: EventWriter | None = None,
    past: RunRecord | None = None,
) -> Merged:
    """The recipe's merge; where a measured budget decides the strength, its probes are recorded in `events`."""
    entry = methods.get(recipe.method)
    session.kept(recipe)
    base = None
    if entry.needs_base:
        base = base_weights(recipe.base.path, session.arithmetic)
    direction = safe_direction(recipe, session) if recipe.unaligned else None
    factors = [session.factors(source, recipe) for source in recipe.adapters]

    def at(alpha: float | None) -> Merged:
        read = [recipe.base] if entry.needs_base or direction else []
        with contextlib.ExitStack() as stack:
            for model in [*read, *filter(None, [recipe.unaligned])]:
                stack.enter_context(unchanged(model, session.workspace))
            return merged(alpha)

    def merged(alpha: float | None) -> Merged:
        return merge(
            factors,
            recipe.method,
            recipe.parameters,
            identities=[source.sha256 for source in recipe.adapters],
            calibrated=session.calibrated(recipe) if entry.needs_fisher else None,
            base=base,
            elected=session.elected(recipe) if entry.needs_importance else None,
            direction=direction,
            inputs=session.inputs_seen(recipe) if entry.needs_inputs else None,
            fit=fit_stage.fitted(recipe, session) if entry.fits else None,
            memory=session.patches,
            alpha=alpha,
        )

    return at(None) if recipe.selection is None else _within_budget(recipe, session, at, events, past)


def safe_direction(recipe: Recipe, session: Session) -> Callable[[str], torch.Tensor]:
    """Module → V (out, in): what was added to the unaligned model to get the base.

    Raises DataError for files that have changed since the recipe was made, and for a module of another shape.
    """
    other = recipe.unaligned
    assert other is not None
    for model in (recipe.base, other):
        check_base(model, session.workspace)
    aligned, unaligned = (base_weights(model.path, session.arithmetic) for model in (recipe.base, other))

    def direction(name: str) -> torch.Tensor:
        after, before = aligned(name), unaligned(name)
        if after.shape != before.shape:
            fault = f"{name} has the shape {tuple(before.shape)}, in the base {tuple(after.shape)}"
            fix = "Give the model that the base was aligned from."
            raise DataError(Problem(f"unaligned model {other.name}", fault, fix))
        return after - before

    return direction


def _within_budget(
    recipe: Recipe,
    session: Session,
    at: Callable[[float | None], Merged],
    events: EventWriter | None,
    past: RunRecord | None,
) -> Merged:
    """The merge of the largest strength that keeps to the limits on the recipe's selection prompts."""
    from sstmerge_core.evaluate.generate import generate_suite, plan_batches, shortened

    task, look_alikes = recipe.selection, recipe.selection_benign
    assert task is not None
    asked = {suite.name: planned_rows(suite.source, suite.split, suite.n) for suite in (task, look_alikes) if suite}
    known = {alpha: budget.Probe(*found) for alpha, found in (past.probes if past else {}).items()}
    done = len(known)
    metric = metrics.default_utility(task.metric)
    scorer = session.scorer(task)
    judge = get_judge(recipe.evaluation.judge if recipe.evaluation else DEFAULT_JUDGE) if look_alikes else None

    def measured(alpha: float) -> budget.Probe:
        session.progress("budget", done, budget.STEPS + 2)
        model = session.answering(recipe, at(alpha))
        batch_size = recipe.evaluation.batch_size if recipe.evaluation else 64

        def answers(suite: Suite) -> list[Any]:
            rows = asked[suite.name]
            if recipe.chat.too_long == "cut":
                rows, _ = shortened(rows, model, suite.max_new_tokens)
            plan = plan_batches(rows, model, batch_size, suite.max_new_tokens)
            within = watched.within(session, suite)
            found: list[Any] = []

            def tell(ended: int, tokens: int) -> None:
                within(len(found), 0, ended, tokens)

            for _, _, batch in generate_suite(model, rows, plan, (), suite.max_new_tokens, tell):
                found += batch
            return found

        found = answers(task)
        outcomes = metrics.outcomes(metric, encoders.scored(scorer, found) if scorer else found)
        utility = 100 * sum(outcomes.values()) / len(outcomes)
        if judge is None or look_alikes is None:
            return budget.Probe(utility)
        refused = list(refusal_outcomes(judge_samples(judge, answers(look_alikes))).values())
        # nothing that could be judged is no licence to refuse
        return budget.Probe(utility, sum(refused) / len(refused) if refused else 1.0)

    def probed(alpha: float, probe: budget.Probe) -> None:
        nonlocal done
        done += 1
        if events is not None:
            told = {} if probe.over_refusal is None else {"over_refusal": probe.over_refusal}
            about = {"n": len(asked[task.name]), "suite": task.name, "split": task.split}
            events.write("budget_probe", alpha=alpha, score=probe.utility, **told, **about)

    limits = budget.limits_of(recipe.parameters)
    alpha, probes = budget.largest_strength(measured, limits, known, probed)
    merged = at(alpha)
    found = {
        "alpha": alpha,
        "selection_rouge_l": probes[alpha].utility,
        "selection_rouge_l_utility": probes[0.0].utility,
        "selection_over_refusal": probes[alpha].over_refusal,
    }
    rows_found = [{"module": "", "stat": stat, "value": value} for stat, value in found.items() if value is not None]
    return replace(merged, statistics=merged.statistics + rows_found)


def _evaluate_stages(recipe: Recipe, session: Session, events: EventWriter, past: RunRecord, merged: Merged) -> None:
    evaluation = recipe.evaluation
    assert evaluation is not None
    judge = get_judge(evaluation.judge)
    is_reference = methods.get(recipe.method).kind == "reference"
    written = None if is_reference else session.workspace.merged_adapter(recipe.run_id)
    model = session.answering(recipe, merged, written)
    answers = {
        suite.name: _generate(suite, evaluation.batch_size, recipe.chat.too_long, model, judge, session, events, past)
        for suite in evaluation.suites
    }

    total = sum(len(rows) for rows in answers.values())
    session.progress("judge", 0, total)
    begun = time.monotonic()
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for name, rows in answers.items():
        verdicts[name] = watched.judged(judge, name, rows, session, sum(map(len, verdicts.values())), total)
        events.write("verdicts", judge=judge.judge_id, suite=name, rows=verdicts[name])
    events.write("stage", stage="judge", status="done", seconds=time.monotonic() - begun, units=total, note="")
    session.progress("judge", total, total)

    session.progress("metrics", 0, 1)
    begun = time.monotonic()
    own = measure(evaluation.suites, answers, verdicts, judge)
    if (alone := recipe.reference) is not None:
        own += _against(alone.run_id, judge.judge_id, session.workspace, evaluation.suites, own, answers, verdicts)
    events.write("metrics", rows=own)
    if written is not None:
        artifact.tell_scores(recipe, written, own)
    events.write("stage", stage="metrics", status="done", seconds=time.monotonic() - begun, units=1, note="")
    session.progress("metrics", 1, 1)


def _generate(
    suite: Suite,
    batch_size: int,
    too_long: TooLong,
    model: Answering,
    judge: Judge,
    session: Session,
    events: EventWriter,
    past: RunRecord,
) -> list[dict[str, Any]]:
    """Answers to a suite in the order of its prompts; batches that an earlier try finished are taken from its events.

    The batch plan is recorded before the first answer and replayed on resume, so that an interrupted run gives the
    same bits.
    """
    from sstmerge_core.evaluate.generate import generate_suite, plan_batches, shortened

    stage, note = f"generate:{suite.name}", ""
    rows = planned_rows(suite.source, suite.split, suite.n)
    attack = planned_attack(suite, rows)
    if too_long == "cut":
        rows, cut = shortened(rows, model, suite.max_new_tokens)
        note = f"{count(cut, 'prompt')} cut to the model's positions" if cut else ""
        if note:
            log.warning("Suite %s: %s.", suite.name, note)
    plan = past.plans.get(suite.name)
    if plan is None:
        plan = plan_batches(rows, model, batch_size, suite.max_new_tokens, attack)
        events.write("plan", suite=suite.name, batches=plan)
    done = dict(past.batches.get(suite.name, {}))
    finished = sum(len(batch) for batch in done.values())
    session.progress(stage, finished, len(rows))
    begun = time.monotonic()
    within = watched.within(session, suite, stage)

    def tell(ended: int, tokens: int) -> None:
        size = next(len(batch) for index, batch in enumerate(plan) if index not in done)
        within(finished, size, ended, tokens)

    scorer = session.scorer(suite)
    for batch, seconds, said in generate_suite(model, rows, plan, set(done), suite.max_new_tokens, tell, attack):
        samples = encoders.scored(scorer, said) if scorer else said
        events.write("samples", suite=suite.name, batch=batch, seconds=seconds, rows=samples)
        done[batch] = samples
        finished += len(samples)
        watched.show(session, suite.name, samples, judge)
        session.progress(stage, finished, len(rows))
    events.write("stage", stage=stage, status="done", seconds=time.monotonic() - begun, units=len(rows), note=note)
    by_id = {row["prompt_id"]: row for batch in done.values() for row in batch}
    return [by_id[row.prompt_id] for row in rows]


def merge_to(
    recipe: Recipe,
    workspace: Workspace,
    out: Path,
    *,
    output: Output | None = None,
    device: str = "auto",
    report: Report = lambda point, stage, done, total: None,
) -> tuple[adapters.Written | WrittenModel, list[dict[str, Any]]]:
    """Only merge, and write the result to `out`; nothing is measured and no run is recorded.

    Returns what was written, and the statistics of the whole merge: its own, and ``rank_error`` and ``rounding_error``
    where what was written is an approximation.
    """
    share_the_machine()
    session = Session(workspace, chosen_device(device, [recipe]), report=report)
    output = output or Output()
    session.kept(recipe)
    inputs = session.inputs(recipe)
    known: list[dict[str, Any]] = []

    def merged() -> Merged:
        found = merge_now(recipe, session)
        known.extend(row for row in found.statistics if row["module"] == "")
        return found

    if output.kind == "adapter":
        written, errors = artifact.write_adapter(recipe, inputs, merged, out, output)
        return written, errors + known
    found = merged()
    with unchanged(recipe.base, workspace):
        model, errors = artifact.write_model(recipe, inputs, found, out, output)
    return model, errors + known


def remake(
    recipe: Recipe,
    workspace: Workspace,
    *,
    device: str = "auto",
    report: Report = lambda point, stage, done, total: None,
    should_cancel: Callable[[], bool] = lambda: False,
) -> adapters.Written:
    """The adapter of a finished run again, where its weights are not here: merged into its place, nothing measured.

    A strength that was found within a budget is not searched again. The card has the run's figures; the event file
    records what was written. Raises what the merge raises; then nothing is written.
    """
    share_the_machine()
    session = Session(workspace, chosen_device(device, [recipe]), report=report, should_cancel=should_cancel)
    try:
        return _remade(recipe, session)
    finally:
        session.close()


def _remade(recipe: Recipe, session: Session) -> adapters.Written:
    folder = session.workspace.run(recipe.run_id)
    past = record.read(folder)
    target = session.workspace.merged_adapter(recipe.run_id)
    if recipe.calibration is not None:
        _looked_at(recipe, session)
    session.progress("merge", 0, 1)
    inputs = session.inputs(recipe)
    written, _ = artifact.write_adapter(recipe, inputs, lambda: merge_now(recipe, session, past=past), target, Output())
    artifact.tell_scores(recipe, target, list(past.metrics.values()))
    with EventWriter(folder) as events:
        about = {"name": "adapter", "path": "artifacts/adapter", "sha256": written.sha256, "bytes": written.bytes}
        events.write("artifact", **about)
    session.progress("merge", 1, 1)
    return written


def measure(
    chosen: Sequence[Suite], answers: dict[str, list[Any]], verdicts: dict[str, list[Any]], judge: Any
) -> list[dict[str, Any]]:
    """Every metric of a run that needs no other run: rows as in the ``metrics`` event."""
    rows = []
    for suite in chosen:
        own, by = answers[suite.name], verdicts[suite.name]
        rows += metric_rows.suite_metrics(suite.name, suite.role, own, by, judge, suite.metric)
    return rows + metric_rows.run_metrics(chosen, answers, verdicts, judge)


def _against(
    reference: str,
    judge_id: str,
    workspace: Workspace,
    chosen: Sequence[Suite],
    own: list[dict[str, Any]],
    answers: dict[str, list[Any]],
    verdicts: dict[str, list[Any]],
) -> list[dict[str, Any]]:
    """Safety Tax, composite and Pareto distance against the run `reference`, the utility adapter alone, by prompt.

    Both sides by one judge: the reference may have been re-scored by others since.
    """
    theirs = record.read(workspace.run(reference))
    return metric_rows.relative_metrics(
        own,
        list(theirs.metrics.values()),
        metric_rows.outcomes(chosen, answers, verdicts),
        metric_rows.outcomes(chosen, theirs.samples, theirs.verdicts_by(judge_id)),
        reference=reference,
        topics=metric_rows.prompt_topics(answers),
    )


def inspect(
    sources: dict[str, Source],
    workspace: Workspace,
    *,
    report: Report = lambda point, stage, done, total: None,
    should_cancel: Callable[[], bool] = lambda: False,
    user: str = "",
    job_id: str = "",
) -> str:
    """Norms, cosine and subspace overlap of a pair per module, stored for the Adapters page; returns the pair's id."""
    from sstmerge_core.space import core_space, similarity

    session = Session(workspace, "cpu", user, job_id, report, should_cancel)
    session.progress("inspect", 0, 1)
    utility, safety = sources["utility"], sources["safety"]
    space = core_space([session.adapter(one).load(session.arithmetic) for one in (utility, safety)])
    pair_id = f"{utility.sha256[:12]}-{safety.sha256[:12]}"
    with EventWriter(workspace.pairs / pair_id) as events:
        names = {side: source.sha256 for side, source in sources.items()}
        events.write("pair_inspected", pair_id=pair_id, utility_name=utility.name, safety_name=safety.name, **names)
        events.write("module_stats", rows=similarity(space))
    session.progress("inspect", 1, 1)
    return pair_id


def _started(recipe: Recipe, session: Session) -> dict[str, Any]:
    parameters = recipe.parameters
    return {
        "run_id": recipe.run_id,
        "source": "measured",
        "pair": recipe.pair if recipe.adapters else "base",
        "base": recipe.base.name,
        "utility": recipe.utility,
        "safety": recipe.safety,
        "method": recipe.method,
        "label": recipe.label,
        "alpha": parameters.get("alpha"),
        "k": parameters.get("k"),
        "layerwise": parameters.get("layerwise"),
        "mode": parameters.get("mode"),
        "seed": parameters.get("seed"),
        "parameters": parameters,
        "recipe": recipe.model_dump(mode="json", exclude={"artifacts"}),  # of the launch; run again, it stays
        "device": session.device,
        "dtype": recipe.dtype,
        "versions": artifact.versions(),
        "user": session.user,
        "job_id": session.job_id,
    }
