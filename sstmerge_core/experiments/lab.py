"""What experiments are made with: measured runs and trained adapters, each made once and then known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstmerge_core import adapters, catalog
from sstmerge_core.builder import preflight
from sstmerge_core.builder.preflight import Options
from sstmerge_core.catalog import Base, Entry
from sstmerge_core.errors import Cancelled
from sstmerge_core.experiments.settings import Settings
from sstmerge_core.jobs import default_device
from sstmerge_core.recipe import Recipe, kept_of_many, with_kept
from sstmerge_core.runs.outcome import outcome
from sstmerge_core.workspace import Workspace

if TYPE_CHECKING:
    from sstmerge_core.merge.quadratic import Prediction
    from sstmerge_core.runs.screen import Screened
    from sstmerge_core.runs.session import Session
    from sstmerge_core.train import TrainingSettings

Outcomes = dict[str, dict[str, Any]]
"""Flat outcome of each run by run_id"""


@dataclass
class Lab:
    """One experiment's place of work. Everything is keyed by content, so a stopped experiment goes on where it was."""

    workspace: Workspace
    settings: Settings
    device: str = "auto"
    user: str = ""
    job_id: str = ""
    report: Callable[[str, float, float], None] = lambda what, done, total: None
    """(what, points done, points planned so far)"""
    should_cancel: Callable[[], bool] = lambda: False
    expected: int = 0
    """Points expected in all"""
    done: int = 0
    _session: Session | None = None

    @cached_property
    def base(self) -> Base:
        """The base model; its files are hashed once, and again when they are read."""
        named = self.settings.base
        known = catalog.bases(self.workspace)
        return next((base for base in known if named in ("", base.name)), None) or catalog.base_at(
            named, self.workspace
        )

    def options(self, split: str = "test", **changes: Any) -> Options:
        """How points are measured: on `n` test prompts or `n_selection` selection prompts."""
        n = self.settings.n if split == "test" else self.settings.n_selection
        said = self.settings
        own = Options(split=split, n=n, dtype=said.dtype, backend=said.backend, judge=said.judge)
        return replace(own, **changes)

    def adapter(self, name: str) -> Entry:
        return catalog.find(self.workspace, name)

    @property
    def where(self) -> str:
        """The device that computes."""
        return default_device() if self.device == "auto" else self.device

    @property
    def session(self) -> Session:
        """The loaded model and the gradients, kept from one phase to the next."""
        from sstmerge_core.models.device import best_device
        from sstmerge_core.runs.session import Session

        if self._session is None:
            self._session = Session(self.workspace, best_device() if self.device == "auto" else self.device)
        return self._session

    def merge(
        self,
        experts: Sequence[Entry],
        safety: Entry,
        method: str,
        parameters: Mapping[str, Any],
        options: Options | None = None,
        base: Base | None = None,
    ) -> Recipe:
        """The recipe of one merge, measured on the test split unless `options` say otherwise."""
        on = base or self.base
        return preflight.merge_recipe(on, experts, safety, method, parameters, options or self.options())

    def alone(
        self, adapter: Entry | None, suite: str, options: Options | None = None, base: Base | None = None
    ) -> Recipe:
        """The recipe that measures one adapter, or the base, alone."""
        return preflight.single_recipe(base or self.base, adapter, suite, options or self.options())

    def measure(self, recipes: Sequence[Recipe], what: str) -> Outcomes:
        """Carry out those that are not known yet; the outcome of each.

        Raises JobError where points failed, after the others are done; Cancelled.
        """
        points = {recipe.run_id: recipe for recipe in recipes}
        missing = [one for one in points.values() if not preflight.is_finished(self.workspace, one)]
        known = len(points) - len(missing)
        start = self.done + known
        self.expected = max(self.expected, start + len(missing))
        self._tell(what, start)
        if missing:
            from sstmerge_core.runs.execute import execute

            def report(point: int, stage: str, done: float, total: float) -> None:
                self._tell(f"{what}: {missing[point].label}", start + point)

            execute(
                with_kept(missing, kept_of_many()),
                self.workspace,
                report=report,
                should_cancel=self.should_cancel,
                user=self.user,
                job_id=self.job_id,
                session=self.session,
            )
        self.done = start + len(missing)
        self._tell(what, self.done)
        return {run_id: outcome(self.workspace, recipe) for run_id, recipe in points.items()}

    def predict(self, recipes: Sequence[Recipe], utility: Entry, safety: Entry, what: str) -> list[Prediction]:
        """What the quadratic model says of each, from gradients at base + ΔU; nothing is generated."""
        from sstmerge_core.runs.predict import predict

        calibration = self.merge([utility], safety, "sst_shield", {}).calibration
        assert calibration is not None
        return predict(
            recipes,
            calibration,
            self.workspace,
            session=self.session,
            report=lambda point, stage, done, total: self._tell(what, self.done),
            should_cancel=self.should_cancel,
        )

    def screen(self, recipes: Sequence[Recipe], what: str) -> list[Screened]:
        """Figures of each on selection prompts, see `runs.screen`; nothing is generated."""
        from sstmerge_core.analysis.screening import Screening
        from sstmerge_core.runs.screen import screen

        session = self.session
        session.report = lambda point, stage, done, total: self._tell(what, self.done)
        session.should_cancel = self.should_cancel
        return screen(recipes, session, Screening.n)

    def train(
        self,
        name: str,
        rows: Sequence[tuple[str, str]],
        settings: TrainingSettings,
        *,
        role: str,
        suite: str,
        description: str,
        base: Base | None = None,
    ) -> Entry:
        """An adapter trained on (prompt, response) `rows`, or the one that was trained so before."""
        from sstmerge_core.models.device import best_device
        from sstmerge_core.train import train

        on = base or self.base
        out = self._place(name, rows, settings, on)
        if not (out / "adapter_config.json").is_file():
            self._tell(f"training {name}", self.done)

            def progress(step: int, steps: int, loss: float) -> None:
                self._tell(f"training {name}", self.done + step / steps)

            record = {"name": name, "role": role, "suite": suite, "description": description}
            device = best_device() if self.device == "auto" else self.device
            base_name = adapters.read_base(on.path).name
            train(
                on.path,
                rows,
                out,
                settings,
                base_name=base_name,
                base_sha256=on.sha256,
                record=record,
                device=device,
                progress=progress,
            )
        self.done += 1
        self.expected = max(self.expected, self.done)
        self._tell(f"trained {name}", self.done)
        return catalog.entry(out, self.workspace, name=name, role=role, suite=suite)

    def trained(
        self,
        name: str,
        rows: Sequence[tuple[str, str]],
        settings: TrainingSettings,
        *,
        role: str,
        suite: str,
        base: Base | None = None,
    ) -> Entry | None:
        """What `train` made of the same before; None where it is not there."""
        out = self._place(name, rows, settings, base or self.base)
        there = (out / "adapter_config.json").is_file()
        return catalog.entry(out, self.workspace, name=name, role=role, suite=suite) if there else None

    def _place(self, name: str, rows: Sequence[tuple[str, str]], settings: TrainingSettings, base: Base) -> Path:
        """The folder of an adapter, named after everything that it is trained from."""
        recipe = {"base": base.sha256, "rows": list(rows), "settings": settings.model_dump(mode="json")}
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]
        return self.workspace.root / "experiments" / "adapters" / f"{name}-{digest}"

    def file(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """A JSONL file of prompts for this experiment, written once; its name carries its content's hash."""
        from sstmerge_core.workspace import write_file

        text = "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = self.workspace.root / "experiments" / "prompts" / digest / f"{name}.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, text)
        return path

    def _tell(self, what: str, done: float) -> None:
        self.report(what, done, max(self.expected, done, 1))
        if self.should_cancel():
            raise Cancelled(f"job {self.job_id}" if self.job_id else "experiment")
