"""Recipes screened before anything is generated: merged, and given texts' losses measured on selection prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import documents
from sstmerge_core.analysis import screening
from sstmerge_core.analysis.screening import SPLIT, Screening
from sstmerge_core.builder.preflight import is_finished
from sstmerge_core.errors import DataError, Problem
from sstmerge_core.fisher import cache
from sstmerge_core.jobs.model import Onlooker
from sstmerge_core.models.device import share_the_machine
from sstmerge_core.recipe import STAGE_VERSIONS, Recipe, record
from sstmerge_core.runs.execute import execute, merge_now
from sstmerge_core.runs.session import Report, Session, chosen_device, put_on
from sstmerge_core.store.events import EventWriter
from sstmerge_core.workspace import Workspace, write_json

if TYPE_CHECKING:
    from sstmerge_core.evaluate.forced import Kept, Texts

VERSION = 1
"""Raised by hand when a figure changes for the same input"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Screened:
    """One setting's figures."""

    recipe: Recipe
    rows: list[Row]
    """Rows of the ``metrics`` event, suites with their split; none where it cannot be screened"""
    seconds: float
    """That it took when it was computed, the merge included"""

    @property
    def figures(self) -> dict[str, float]:
        """By metric, see `screening.figures`."""
        assert self.recipe.evaluation is not None
        utility = next((suite.name for suite in self.recipe.evaluation.suites if suite.role == "utility"), "")
        return screening.figures(self.rows, f"{utility} ({SPLIT})" if utility else "")

    @property
    def setting(self) -> screening.Setting:
        """As it is chosen among others."""
        return screening.Setting(self.recipe.run_id, self.recipe.method, self.recipe.label, self.figures)


def execute_best(
    recipes: Sequence[Recipe],
    workspace: Workspace,
    plan: Screening,
    *,
    report: Report = lambda point, stage, done, total: None,
    tell: Callable[[str], None] = lambda part: None,
    should_cancel: Callable[[], bool] = lambda: False,
    user: str = "",
    job_id: str = "",
    device: str = "auto",
    onlooker: Onlooker | None = None,
) -> screening.Record:
    """Screen `recipes`, carry out the best as `execute` does, and record which and why; what was done before is known.

    The record is there before the first answer is generated. Runs that are carried out get their screening figures as
    metrics beside the others. Raises what `screen` and `execute` raise.
    """
    session = Session(workspace, chosen_device(device, recipes), user, job_id, report, should_cancel)
    try:
        tell("1/2 screening")
        screened = screen(recipes, session, plan.n)
        found = screening.choose([one.setting for one in screened], plan, job_id)
        screening.save(workspace, found)
        tell("2/2 the best")
        generated = {one.run_id for one in found.settings if one.generated}
        kept = [one for one in screened if one.recipe.run_id in generated]
        how: dict[str, Any] = {"report": report, "should_cancel": should_cancel, "user": user, "job_id": job_id}
        how["onlooker"] = onlooker
        try:
            execute([one.recipe for one in kept], workspace, **how, session=session)
        finally:
            for one in kept:
                note(workspace, one)
    finally:
        session.close()
    return found


def screen(recipes: Sequence[Recipe], session: Session, n: int) -> list[Screened]:
    """The figures of each recipe on at most `n` selection prompts of each of its suites, kept by content.

    A recipe whose strength is found by generating gets none. Beside the merge a forward pass over 4·n texts; memory
    is that of a merge and of one batch's logits, see `evaluate.forced`. Raises DataError for suites without a selection
    split and recipes that measure nothing, what a merge raises, and Cancelled.
    """
    share_the_machine()
    found = []
    references: dict[str, dict[str, list[Kept]]] = {}
    for done, recipe in enumerate(recipes):
        session.progress("screen", done, len(recipes))
        found.append(_screen(recipe, session, n, references))
    session.progress("screen", len(recipes), len(recipes))
    return found


def _screen(recipe: Recipe, session: Session, n: int, references: dict[str, dict[str, list[Kept]]]) -> Screened:
    from sstmerge_core.evaluate import forced

    if recipe.evaluation is None:
        raise DataError(Problem(recipe.label, "measures nothing, so there are no suites to screen on"))
    if recipe.selection is not None:
        return Screened(recipe, [], 0.0)
    texts = forced.texts_of(recipe.evaluation.suites, n)
    path = _path(recipe, texts, session.workspace, session.device)
    if path.is_file():
        known = documents.read_json(path)
        return Screened(recipe, known["rows"], known["seconds"])
    reference = _reference(recipe, session, texts, references)
    begun = time.monotonic()
    merged = merge_now(recipe, session)
    resident = session.model(recipe.base, recipe.dtype, kept=session.kept(recipe))
    put_on(recipe, resident, merged)
    rows = forced.measure(resident.model, resident.tokenizer, texts, reference)
    seconds = time.monotonic() - begun
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"rows": rows, "seconds": seconds})
    return Screened(recipe, rows, seconds)


def _reference(
    recipe: Recipe, session: Session, texts: Sequence[Texts], known: dict[str, dict[str, list[Kept]]]
) -> dict[str, list[Kept]]:
    """What is kept of U by suite, computed for the first recipe that has this U; of U itself that of itself."""
    from sstmerge_core.evaluate import forced

    alone = recipe.reference or recipe
    if alone.run_id not in known:
        resident = session.model(alone.base, alone.dtype, kept=session.kept(alone))
        put_on(alone, resident, merge_now(alone, session))
        model = resident.model, resident.tokenizer
        known[alone.run_id] = {
            own.suite: forced.distributions(*model, own.given["reference"])
            for own in texts
            if own.role == "utility" and "reference" in own.given
        }
    return known[alone.run_id]


def is_known(recipe: Recipe, workspace: Workspace, device: str, n: int = Screening.n) -> bool:
    """Whether `screen` finds a recipe's figures on `device` without computing them."""
    from sstmerge_core.evaluate import forced

    return (
        recipe.evaluation is not None
        and _path(recipe, forced.texts_of(recipe.evaluation.suites, n), workspace, device).is_file()
    )


def _path(recipe: Recipe, texts: Sequence[Texts], workspace: Workspace, device: str) -> Path:
    """Where figures are kept: named after everything that can change them, the merge by content, the texts, and how the
    model computes."""
    assert recipe.evaluation is not None
    merge = recipe.model_copy(update={"evaluation": None, "selection_benign": None})
    said = [[own.suite, own.role, own.topics, own.given] for own in texts]
    how = [recipe.dtype, recipe.evaluation.applied, device.partition(":")[0]]
    depends = {"merge": merge.run_id, "texts": said, "how": how, "version": [VERSION, STAGE_VERSIONS["merge"]]}
    return workspace.cache / "screened" / f"{cache.key(**depends)}.json"


def note(workspace: Workspace, one: Screened) -> None:
    """Put a finished run's figures beside its metrics; once."""
    if not one.rows or not is_finished(workspace, one.recipe):
        return
    folder = workspace.run(one.recipe.run_id)
    known = record.read(folder).metrics
    if new := [row for row in one.rows if known.get((row["metric"], row["suite"], row["judge"])) != row]:
        with EventWriter(folder) as events:
            events.write("metrics", rows=new)
