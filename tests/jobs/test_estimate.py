from __future__ import annotations

import random
from collections.abc import Mapping
from statistics import median

import pytest

from sstmerge_core.jobs.estimate import Estimator, Rates, relative_error
from sstmerge_core.jobs.plan import plan_units
from sstmerge_core.recipe import Calibration, Evaluation, Recipe, Suite
from sstmerge_core.store.events import EventWriter
from sstmerge_core.workspace import Workspace
from tests.jobs.conftest import A5, A7, BASE
from tests.there import there

SUITES: dict[str, float] = {"generate:harmful": 72, "generate:near_miss": 60, "generate:facts": 60}
STAGES: dict[str, float] = {"merge": 1, **SUITES, "judge": 192, "metrics": 1}
RATES = {"start": 9.0, "prepare": 12.0, "fisher": 0.7, "merge": 4.0, "generate": 0.5, "judge": 0.002, "metrics": 1.0}


def job_plan(points: int) -> list[dict[str, float]]:
    """The first point loads the model and computes the gradients; with a reference run, it has each stage twice."""
    return [{"prepare": 1, "fisher": 60, **STAGES}, *(dict(STAGES) for _ in range(points - 1))]


def simulate(
    points: int, rates: Mapping[str, float], rng: random.Random, history: Rates | None = None, cached: bool = False
) -> tuple[float, dict[str, float]]:
    """Run a job on a made-up clock; returns the error of what was announced at half of it, and the learnt rates."""
    estimator = Estimator(plan=job_plan(points), started=0.0, history=history or {})
    now: float = rates["start"]
    half: tuple[float, float | None] | None = None
    for point, stages in enumerate(job_plan(points)):
        for stage, total in stages.items():
            if cached and stage == "fisher":
                continue
            estimator.observe(now, point, stage, 0, total)
            step = 16 if stage.startswith("generate") else 15 if stage == "fisher" else int(total)
            for done in range(step, int(total) + step, step):
                now += min(step, total - done + step) * rates[stage.partition(":")[0]] * rng.uniform(0.85, 1.15)
                if half is None and estimator.progress(now) >= 0.5:
                    half = now, estimator.remaining(now)
                estimator.observe(now, point, stage, min(done, total), total)
    assert half is not None and half[1] is not None
    assert estimator.remaining(now) == pytest.approx(0, abs=0.5)
    return there(relative_error(half[1], now - half[0])), estimator.rates()


def other_machine(rng: random.Random) -> dict[str, float]:
    return {stage: rate * rng.uniform(0.3, 3) for stage, rate in RATES.items()}


@pytest.mark.parametrize("points", [2, 5, 12])
def test_half_way_through_a_first_sweep_the_remaining_time_is_right_within_30_percent(points):
    rng = random.Random(points)
    assert median(simulate(points, other_machine(rng), rng)[0] for _ in range(15)) < 0.3


def test_a_single_run_is_predicted_from_what_an_earlier_job_showed():
    rng = random.Random(1)
    errors = []
    for _ in range(15):
        machine = other_machine(rng)
        _, history = simulate(2, machine, rng)
        busy = {stage: rate * 1.6 for stage, rate in machine.items()}  # the same machine, with other work on it
        errors.append(simulate(1, busy, rng, history)[0])
    assert median(errors) < 0.3


def test_gradients_found_in_the_cache_are_not_waited_for():
    rng = random.Random(2)
    _, history = simulate(2, RATES, rng)
    assert simulate(3, RATES, rng, history, cached=True)[0] < 0.3


def test_progress_never_goes_back_and_stays_below_one_until_the_end():
    estimator = Estimator(plan=job_plan(3), started=0.0)
    seen = [estimator.progress(now / 2) for now in range(20)]
    estimator.observe(10, 0, "generate:harmful", 0, 72)
    seen += [estimator.progress(10 + now) for now in range(200)]
    assert seen == sorted(seen) and seen[-1] < 1


def test_between_two_reports_the_remaining_time_runs_down_and_does_not_become_negative():
    estimator = Estimator(plan=[{"merge": 1.0}], started=0.0, history={"merge": 10.0, "start": 1.0})
    estimator.observe(1, 0, "merge", 0, 1)
    assert estimator.remaining(1) == pytest.approx(10)
    assert estimator.remaining(5) == pytest.approx(6)
    assert estimator.remaining(100) == 0


def test_what_a_resumed_run_had_done_already_does_not_count_as_speed():
    estimator = Estimator(plan=[{"generate:facts": 60.0}], started=0.0, history={"generate:facts": 1.0})
    estimator.observe(0, 0, "generate:facts", 40, 60)
    estimator.observe(10, 0, "generate:facts", 50, 60)
    assert estimator.rates()["first:generate:facts"] == pytest.approx(1.0)
    assert estimator.remaining(10) == pytest.approx(10, rel=0.1)


def test_an_error_is_relative_to_what_it_really_took_and_says_nothing_about_instants():
    assert relative_error(12, 10) == pytest.approx(0.2)
    assert relative_error(12, 0.5) is None


def planned(alpha: float, calibrated: bool = True) -> Recipe:
    suites = (
        Suite(name="harmful", role="harmful", split="test", n=72, source=A7),
        Suite(name="facts", role="utility", split="test", n=60, source=A5),
    )
    return Recipe(
        base=BASE,
        adapters=(A5, A7),
        method="sst_gevp",
        parameters={"alpha": alpha},
        calibration=Calibration(harm=A7, benign=A5, n_harm=20, n_benign=30) if calibrated else None,
        evaluation=Evaluation(suites=suites),
    )


def test_a_plan_counts_the_reference_run_and_the_gradients_once_and_finished_runs_not_at_all(tmp_path):
    workspace = Workspace(tmp_path).create()
    recipes = [planned(0.1), planned(0.2), planned(0.3)]
    with EventWriter(workspace.run(recipes[1].run_id)) as events:
        events.write("run_started")
        events.write("run_finished")
    first, second, third = plan_units(recipes, workspace)
    assert first["prepare"] == 1 and first["fisher"] == 50
    assert (first["merge"], first["generate:harmful"], first["judge"]) == (2, 144, 264)
    assert second == {}
    assert third == {"merge": 1, "generate:harmful": 72, "generate:facts": 60, "judge": 132, "metrics": 1}
