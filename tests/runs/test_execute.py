from __future__ import annotations

import json
import os
import signal
import time

import pytest

from sstmerge_core import adapters, catalog, methods
from sstmerge_core.builder import preflight
from sstmerge_core.errors import AdapterError, Cancelled, JobError
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.runs.execute import execute, inspect
from sstmerge_core.store.events import last_status, read_events
from sstmerge_core.workspace import Workspace
from tests.processes import died
from tests.there import there

SMALL = preflight.Options(n=6)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace").create()


@pytest.fixture
def inputs(tiny_base, tiny_pair):
    base = catalog.base_at(tiny_base)
    return {
        "base": base,
        "utility": catalog.entry(tiny_pair[0], name="U", role="utility", suite="facts"),
        "safety": catalog.entry(tiny_pair[1], name="S", role="safety"),
    }


def recipe(workspace, inputs, method="linear", **parameters) -> Recipe:
    plan = preflight.plan(workspace, **inputs, method=method, parameters=parameters, options=SMALL)
    assert not plan.problems
    return short(there(plan.recipe))


def short(one: Recipe) -> Recipe:
    """The same recipe with answers of at most four tokens, in two batches."""
    evaluation = there(one.evaluation)
    suites = tuple(suite.model_copy(update={"max_new_tokens": 4}) for suite in evaluation.suites)
    return one.model_copy(update={"evaluation": evaluation.model_copy(update={"suites": suites, "batch_size": 3})})


def results(workspace, run_id):
    """Everything of a run that must not depend on interruptions: answers, verdicts, metrics, plan."""
    found: dict[tuple[str, ...], object] = {}
    for event in read_events(workspace.run(run_id)):
        if event["event"] == "samples":
            found["samples", event["suite"], event["batch"]] = event["rows"]
        elif event["event"] in ("verdicts", "metrics", "plan"):
            found[event["event"], event.get("suite", "")] = {k: v for k, v in event.items() if k != "t"}
    return found


@pytest.mark.parametrize("method", methods.names())
def test_every_method_runs_from_recipe_to_stored_metrics(workspace, inputs, method):
    one = recipe(workspace, inputs, method)
    execute([one], workspace)
    events = list(read_events(workspace.run(one.run_id)))
    assert events[-1]["event"] == "run_finished" and events[-1]["peak_memory_bytes"] > 0
    rows = {(row["metric"], row["suite"]): row for row in next(e for e in events if e["event"] == "metrics")["rows"]}
    assert rows["resistance", "harmful"]["n"] == 6
    assert rows["asr", "harmful"]["value"] is None and rows["asr", "harmful"]["status"] == "judge_cannot_tell"
    reference = there(one.reference).run_id
    assert rows["safety_tax", "facts"]["reference"] == reference
    assert last_status(workspace.run(reference)) == "finished"
    written = adapters.read(workspace.run(one.run_id) / "artifacts" / "adapter")
    assert written.rank >= 4
    spectra = [event for event in events if event["event"] == "spectrum"]
    assert bool(spectra) == any(parameter.name == "rho" for parameter in methods.get(method).parameters)


def test_a_budget_in_rouge_points_is_kept_on_the_selection_split(workspace, inputs):
    one = recipe(workspace, inputs, "sst_budget", unit="rouge_l", budget=1.0)
    selection = there(one.selection)
    assert selection.split == "selection" and selection.source.sha256 not in {
        suite.source.sha256 for suite in there(one.evaluation).suites
    }
    one = one.model_copy(update={"selection": selection.model_copy(update={"max_new_tokens": 4})})
    execute([one], workspace)
    events = list(read_events(workspace.run(one.run_id)))
    probes = {event["alpha"]: event["score"] for event in events if event["event"] == "budget_probe"}
    rows = [row for event in events if event["event"] == "module_stats" for row in event["rows"]]
    chosen = next(row["value"] for row in rows if (row["module"], row["stat"]) == ("", "alpha"))
    assert probes[chosen] >= probes[0.0] - 1.0 and events[-1]["event"] == "run_finished"


def test_limits_on_over_refusal_and_utility_are_both_kept_on_the_selection_split_and_resumed(workspace, inputs):
    one = recipe(workspace, inputs, "sst_budget", unit="percent", budget=50.0, over_refusal=0.3)
    assert there(one.selection_benign).role == "benign" and there(one.selection_benign).split == "selection"
    small = {
        name: there(getattr(one, name)).model_copy(update={"max_new_tokens": 4})
        for name in ("selection", "selection_benign")
    }
    one = one.model_copy(update=small)
    execute([one], workspace)
    events = list(read_events(workspace.run(one.run_id)))
    probes = {event["alpha"]: event for event in events if event["event"] == "budget_probe"}
    rows = {
        (row["module"], row["stat"]): row["value"] for e in events if e["event"] == "module_stats" for row in e["rows"]
    }
    chosen = probes[rows["", "alpha"]]
    assert chosen["over_refusal"] <= 0.3 or rows["", "alpha"] == 0.0
    assert chosen["score"] >= 0.5 * probes[0.0]["score"]
    assert rows["", "selection_over_refusal"] == chosen["over_refusal"]
    past = record.read(workspace.run(one.run_id))
    assert past.probes[0.0] == (probes[0.0]["score"], probes[0.0]["over_refusal"])


def test_a_limit_that_a_budget_in_nats_would_ignore_is_refused(workspace, inputs):
    given = {"budget": 0.05, "unit": "nats", "over_refusal": 0.2}
    plan = preflight.plan(workspace, **inputs, method="sst_budget", parameters=given, options=SMALL)
    assert plan.recipe is None and "over_refusal" in str(plan.problems[0])


def test_runs_of_a_budget_without_the_limit_keep_their_id(workspace, inputs):
    one = recipe(workspace, inputs, "sst_budget", unit="rouge_l", budget=1.0)
    before = {name: value for name, value in one.parameters.items() if name != "over_refusal"}
    assert one.model_copy(update={"parameters": before}).run_id == one.run_id
    assert one.selection_benign is None


def test_what_is_at_work_is_told_the_reference_before_the_merge(workspace, inputs):
    one = recipe(workspace, inputs, "linear")
    told: list[str] = []
    execute([one], workspace, tell=told.append)
    assert told == ["1/2 reference: U alone", "2/2 your merge"]
    told.clear()
    execute([recipe(workspace, inputs, "linear", alpha=0.25)], workspace, tell=told.append)
    assert told == [""], "the reference is known by now"


def test_a_finished_recipe_is_not_run_again(workspace, inputs):
    one = recipe(workspace, inputs)
    execute([one], workspace)
    before = (workspace.run(one.run_id) / "events.jsonl").read_bytes()
    execute([one], workspace)
    assert (workspace.run(one.run_id) / "events.jsonl").read_bytes() == before


def test_a_cancelled_run_keeps_its_answers_and_resumes_to_the_same_result(workspace, inputs, tmp_path):
    one = recipe(workspace, inputs, "sst_gevp")
    other = Workspace(tmp_path / "straight").create()
    execute([one], other)
    calls = []

    def stop_after_the_first_suite() -> bool:
        events = list(read_events(workspace.run(one.run_id)))
        calls.append(1)
        return sum(event["event"] == "samples" for event in events) >= 3

    with pytest.raises(Cancelled):
        execute([one], workspace, should_cancel=stop_after_the_first_suite)
    assert last_status(workspace.run(one.run_id)) == "cancelled"
    execute([one], workspace)
    assert results(workspace, one.run_id) == results(other, one.run_id)
    batches = [(e["suite"], e["batch"]) for e in read_events(workspace.run(one.run_id)) if e["event"] == "samples"]
    assert len(batches) == len(set(batches)) == 6


KILLED = """
import json, os, signal, sys
from sstmerge_core.runs.execute import execute
from sstmerge_core.recipe import Recipe, record
from sstmerge_core.store.events import EventWriter
from sstmerge_core.workspace import Workspace

recipes = [Recipe.model_validate(one) for one in json.load(open(sys.argv[2]))]
left, write = int(sys.argv[3]), EventWriter.write

def write_and_die(self, event, **fields):
    global left
    write(self, event, **fields)
    if event == "samples":
        left -= 1
        if left == 0:
            self._file.write(b'{"event": "samples", "ba')  # a line torn in the middle
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

EventWriter.write = write_and_die
execute(recipes, Workspace(__import__("pathlib").Path(sys.argv[1])))
"""


def test_a_sweep_killed_five_times_ends_with_the_bits_of_one_that_was_not(workspace, inputs, tmp_path):
    sweep = [recipe(workspace, inputs, "linear", alpha=alpha) for alpha in (0.2, 0.7)]
    other = Workspace(tmp_path / "straight").create()
    execute(sweep, other)
    file = tmp_path / "recipes.json"
    file.write_text(json.dumps([one.model_dump(mode="json") for one in sweep]))
    for _ in range(5):
        assert died(KILLED, str(workspace.root), str(file), "2") == -signal.SIGKILL
    execute(sweep, workspace)
    for one in (*sweep, there(sweep[0].reference)):
        assert last_status(workspace.run(one.run_id)) == "finished"
        assert results(workspace, one.run_id) == results(other, one.run_id)
    starts = [e["event"] for e in read_events(workspace.run(sweep[0].run_id))].count("run_started")
    assert starts > 1


def test_a_changed_adapter_is_noticed_and_the_other_points_go_on(workspace, inputs, tiny_pair, tmp_path):
    import shutil

    copy = tmp_path / "S2"
    shutil.copytree(tiny_pair[1], copy)
    changed = recipe(workspace, inputs | {"safety": catalog.entry(copy, name="S2", role="safety")}, alpha=0.3)
    settings = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 77}))
    good = recipe(workspace, inputs, alpha=0.4)
    with pytest.raises(JobError, match="have changed since"):
        execute([changed, good], workspace)
    assert last_status(workspace.run(changed.run_id)) == "failed"
    assert last_status(workspace.run(good.run_id)) == "finished"


def test_the_run_id_follows_content_and_not_places_or_names(workspace, inputs, tiny_pair, tmp_path):
    import shutil

    one = recipe(workspace, inputs)
    shutil.copytree(tiny_pair[0], tmp_path / "elsewhere")
    moved = recipe(workspace, inputs | {"utility": catalog.entry(tmp_path / "elsewhere", name="X", suite="facts")})
    assert moved.run_id == one.run_id
    assert recipe(workspace, inputs, alpha=0.51).run_id != one.run_id
    assert recipe(workspace, inputs, "task_arithmetic", alpha=0.5).run_id != one.run_id


def test_gradients_are_computed_once_for_a_whole_sweep(workspace, inputs, monkeypatch):
    import sstmerge_core.fisher as fisher

    calls = []
    original = fisher.core_gradients

    def counted(*arguments, **named):
        calls.append(1)
        return original(*arguments, **named)

    monkeypatch.setattr(fisher, "core_gradients", counted)
    execute([recipe(workspace, inputs, "sst_gevp", alpha=alpha, k=k) for alpha in (0.5, 1) for k in (2, 5)], workspace)
    execute([recipe(workspace, inputs, "sst_shield", alpha=1)], workspace)
    assert len(calls) == 2  # harm and benign


def test_a_pair_is_inspected_for_the_adapters_page(workspace, inputs):
    sources = {side: inputs[side].source for side in ("base", "utility", "safety")}
    pair_id = inspect(sources, workspace)
    rows = next(e for e in read_events(workspace.pairs / pair_id) if e["event"] == "module_stats")["rows"]
    cosines = [row["value"] for row in rows if row["stat"] == "cosine"]
    assert len(cosines) == 14 and all(-1 <= value <= 1 for value in cosines)


def test_the_adapter_that_leaves_carries_its_recipe_but_no_path_of_this_machine(workspace, inputs):
    one = recipe(workspace, inputs)
    execute([one], workspace)
    folder = workspace.run(one.run_id) / "artifacts" / "adapter"
    record = json.loads((folder / "sstmerge.json").read_text())
    assert record["run_id"] == one.run_id and record["recipe"]["method"] == "linear"
    for file in folder.iterdir():
        assert str(workspace.root).encode() not in file.read_bytes()
        assert str(inputs["utility"].path).encode() not in file.read_bytes()
    assert "--method linear" in (folder / "README.md").read_text()


def test_a_worker_killed_with_minus_nine_is_seen_as_lost_and_resumes(workspace, inputs):
    from sstmerge_core import jobs

    sweep = [recipe(workspace, inputs, "linear", alpha=alpha) for alpha in (0.1, 0.5, 0.9)]
    job_id = jobs.submit(workspace, sweep, name="sweep", kind="sweep", device="cpu")
    deadline = time.time() + 120
    while time.time() < deadline and last_status(workspace.run(sweep[0].run_id)) != "finished":
        time.sleep(0.05)
    with __import__("sqlite3").connect(workspace.queue) as connection:
        pid = connection.execute("SELECT pid FROM jobs WHERE job_id = ?", [job_id]).fetchone()[0]
    os.kill(pid, signal.SIGKILL)
    state = there(jobs.job(workspace, job_id))
    while time.time() < deadline and state.state == "running":
        time.sleep(0.1)
        state = there(jobs.job(workspace, job_id))
    before = (workspace.run(sweep[0].run_id) / "events.jsonl").read_bytes()
    if state.state == "lost":  # it may have been done before the signal came
        jobs.resume(workspace, job_id)
    assert jobs.wait(workspace, job_id, timeout=120).state == "done"
    assert all(last_status(workspace.run(one.run_id)) == "finished" for one in sweep)
    assert (workspace.run(sweep[0].run_id) / "events.jsonl").read_bytes() == before


def test_preflight_names_every_problem_before_any_work(workspace, inputs, tmp_path):
    plan = preflight.plan(
        workspace,
        base=inputs["base"],
        utility=inputs["utility"],
        safety=inputs["utility"],
        method="linear",
        parameters={"alpha": "abc", "beta": 1},
    )
    assert plan.recipe is None and len(plan.problems) == 3
    assert not list(workspace.runs.iterdir())


def test_a_sweep_collapses_points_that_are_the_same(workspace, inputs):
    plan = preflight.plan_sweep(
        workspace,
        **inputs,
        methods=["linear", "sst_gevp", "dare_linear"],
        alphas=[0.2, 0.4],
        strengths=[1.0],
        ks=[2, 5],
        seeds=[1, 2, 3],
        options=SMALL,
    )
    assert plan.points == 2 + 2 + 2 * 3
    assert all(one.parameters["alpha"] == 1.0 for one in plan.recipes if one.method == "sst_gevp")


def test_an_adapter_is_registered_found_and_forgotten(workspace, tiny_pair, tmp_path):
    added = catalog.add(workspace, tiny_pair[0], "mine", "utility", "facts")
    assert catalog.find(workspace, "mine") == added
    with pytest.raises(AdapterError, match="taken by another adapter"):
        catalog.add(workspace, tiny_pair[1], "mine")
    with pytest.raises(AdapterError, match="not usable as an adapter's name"):
        catalog.add(workspace, tiny_pair[1], "a b/c")
    catalog.remove(workspace, added.sha256)
    with pytest.raises(AdapterError, match="no such adapter"):
        catalog.find(workspace, "mine")
