"""How long a job still takes, learnt from what it has done so far.

A job is a row of points; a point is stages, each with units of work (samples, prompts). Points are alike, except that
the first one loads the model and computes what the others find in the cache: its rates are kept apart. A rate is
seconds per unit. What this job has shown counts most, then what earlier jobs showed, then a rough guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Plan = Sequence[Mapping[str, float]]
"""Units of work per stage, one mapping a point; an empty mapping is a point that is known to be finished."""
Rates = Mapping[str, float]
"""Seconds per unit by stage; ``first:<stage>`` for a stage within a job's first point."""

FIRST = "first:"
START = "start"
"""From the start of the process to the first report: imports."""
ONCE = frozenset({START, "prepare", "screen", "fisher", "importance", "inputs", "fit", "passes"})
"""Stages that later points find done, unless the plan says otherwise."""
GUESS: Rates = dict(
    start=8.0,
    prepare=8.0,
    fisher=0.3,
    importance=0.5,
    inputs=0.1,
    fit=12.0,
    passes=90.0,
    screen=12.0,
    budget=12.0,
    merge=1.0,
    generate=0.2,
    judge=0.01,
    metrics=1.0,
    experiment=30.0,
    train=0.5,
)
"""Seconds per unit on two CPU cores; only their proportions matter once anything has been seen."""
DECAY = 0.7
"""Weight of a point's speed one point later, so that a machine that slows down is followed."""
PRIOR_WEIGHT = 0.1
"""How much of a stage must be done before what is seen counts as much as what was known."""
UNSURE = {"seen": 1.25, "known": 2.0, "guessed": 3.0}
"""By how much a rate may be off either way: seen in this job, known from earlier ones, guessed. Of 200 simulated jobs
(tests/jobs/test_time_between.py) nine in ten end between what these give"""
DRIFT = (0.2, 5.0)
DRIFT_SECONDS = 2.0
"""Added to both sides of the drift, so that the first moments do not rule."""


@dataclass
class Spent:
    seconds: float = 0.0
    units: float = 0.0


@dataclass
class Estimator:
    """Fed by `observe`; asked by `remaining` and `progress`. Times are seconds of any one clock."""

    plan: list[dict[str, float]]
    started: float
    history: Rates = field(default_factory=dict)
    pace: float = 1.0
    """By how much longer everything takes now than what is known says; see `jobs.pace`"""
    point: int = 0
    stage: str = START
    done: float = 0.0
    total: float = 1.0
    at: float = 0.0
    """When the last report came."""
    workers: int = 1
    """Workers that share what is left"""
    _closed: set[int] = field(default_factory=set)
    """Points that are behind this worker, or another's"""
    _first: int | None = None
    """The first point worked on; points before it were finished by an earlier job."""
    _whole_points: int = 0
    _seen: dict[str, Spent] = field(default_factory=dict)
    _behind: dict[str, float] = field(default_factory=dict)
    """Units of the current point's stages that are behind us. A stage can come twice: a reference run, then the run."""
    _unplanned: dict[str, float] = field(default_factory=dict)
    _usual: dict[str, float] = field(default_factory=dict)
    """Units of a stage in any point: how much evidence a tenth of it is."""
    _drift: float = 1.0
    _progress: float = 0.0

    def __post_init__(self) -> None:
        self.at = self.started
        for point in self.plan:
            self._usual |= point

    def observe(self, now: float, point: int, stage: str, done: float, total: float) -> None:
        """Take in that `done` of `total` units of a stage of a point are done.

        The first report of a stage is its starting point (0, or what a resumed run had already). A stage of more
        than one unit whose first report is complete was cached and says nothing about its rate.
        """
        passed, self.at = now - self.at, now
        same = self._first is not None and (point, stage) == (self.point, self.stage)
        if not same and self.done < self.total:
            # Time after an unfinished stage's last report was still that stage, which must have ended by now.
            self._spend(self.stage, passed, self.total - self.done)
            passed = 0.0
        if self._first is None:
            self._first = self.point = point
        elif point != self.point:
            self._leave_point()
            self.point = point
        elif not same:
            self._behind[self.stage] = self._behind.get(self.stage, 0.0) + self.total
        whole_at_once = total <= 1 and done >= total
        units = done - self.done if same else total if whole_at_once else 0.0
        self._spend(stage, passed, units)
        self._note_units(stage, float(total))
        self._drift = self._measure_drift()
        self.stage, self.done, self.total = stage, float(done), float(total)

    def remaining(self, now: float) -> float:
        """Seconds left, from the rates so far."""
        later: dict[str, float] = {}
        for point in self._ahead():
            for stage, units in self.plan[point].items():
                later[stage] = later.get(stage, 0.0) + units
        seconds = self._seconds(later, first=False) + self._seconds(self._here(), first=self._in_first_point())
        left = max(0.0, self.total - self.done)
        # Between two reports (a batch takes a while) time passes as expected.
        here = max(0.0, self._seconds({self.stage: left}, first=self._in_first_point()) - (now - self.at))
        return (seconds + here) / self.workers

    def elsewhere(self, closed: set[int], workers: int) -> None:
        """Points that other workers have done or are at, and how many workers there are."""
        self._closed |= closed
        self.workers = workers

    def between(self, now: float) -> tuple[float, float]:
        """Between what the seconds left should lie: close where this job's own pace is known, wide where it is not."""
        least = most = 0.0
        for stage, (seconds, first) in self._to_come(now).items():
            unsure = self._unsure(stage, first=first)
            least, most = least + seconds / unsure, most + seconds * unsure
        return least, most

    def _to_come(self, now: float) -> dict[str, tuple[float, bool]]:
        """Seconds to come by stage as in `remaining`, and whether they are those of a first point."""
        first = self._in_first_point()
        here = dict(self._here())
        found: dict[str, float] = {}
        for point in self._ahead():
            for stage, units in self.plan[point].items():
                found[stage] = found.get(stage, 0.0) + self._seconds({stage: units}, first=False)
        for stage, units in here.items():
            found[stage] = found.get(stage, 0.0) + self._seconds({stage: units}, first=first)
        left = self._seconds({self.stage: max(0.0, self.total - self.done)}, first=first)
        found[self.stage] = found.get(self.stage, 0.0) + max(0.0, left - (now - self.at))
        shared = self.workers
        return {stage: (seconds / shared, first and stage in {*here, self.stage}) for stage, seconds in found.items()}

    def _unsure(self, stage: str, *, first: bool) -> float:
        spent = self._evidence(stage, first=first)
        weight = PRIOR_WEIGHT * max(1.0, self._usual.get(stage, 1.0))
        before = UNSURE["known" if is_known(self.history, stage) else "guessed"]
        return before + (UNSURE["seen"] - before) * spent.units / (spent.units + weight)

    def progress(self, now: float) -> float:
        """Share of the job's time that has passed, 0…0.999; never goes back."""
        elapsed = max(0.0, now - self.started)
        whole = elapsed + self.remaining(now)
        self._progress = max(self._progress, min(0.999, elapsed / whole if whole > 0 else 0.0))
        return self._progress

    def rate(self, stage: str, *, first: bool) -> float:
        """Seconds per unit to expect of a stage: seen in such a point, else in the other kind, weighed with known."""
        spent = self._evidence(stage, first=first)
        weight = PRIOR_WEIGHT * max(1.0, self._usual.get(stage, 1.0))
        known = known_rate(self.history, stage, first) * self.pace * self._drift
        return (spent.seconds + known * weight) / (spent.units + weight)

    def _evidence(self, stage: str, *, first: bool) -> Spent:
        """What this job has shown of a stage: in such a point, else in the other kind."""
        candidates = [self._seen.get(_key(stage, kind)) for kind in (first, not first)]
        return next((item for item in candidates if item and item.units), Spent())

    def rates(self) -> dict[str, float]:
        """What this job showed, to be known by the next one."""
        return {key: spent.seconds / spent.units for key, spent in self._seen.items() if spent.units > 0}

    def _seconds(self, units: Mapping[str, float], *, first: bool) -> float:
        return sum(
            self.rate(stage, first=first) * amount
            for stage, amount in units.items()
            if amount > 0 and not self._not_coming(stage)
        )

    def _here(self) -> dict[str, float]:
        """Units still to come in the current point, without what is left of the current stage's turn."""
        planned = self.plan[self.point] if self.point < len(self.plan) else {}
        behind = self._behind | {self.stage: self._behind.get(self.stage, 0.0) + self.total}
        ahead = {stage: units - behind.get(stage, 0.0) for stage, units in planned.items()}
        if ahead.get("merge") == 0:
            for stage in ("fisher", "importance", "inputs", "fit", "passes"):
                ahead.pop(stage, None)  # they come before the last merge: what is missing was in the cache
        return ahead

    def _in_first_point(self) -> bool:
        return self._first in (None, self.point)

    def _not_coming(self, stage: str) -> bool:
        """A planned stage that whole points went by without."""
        return self._whole_points > 0 and not {stage, _key(stage, True)} & self._seen.keys()

    def _measure_drift(self) -> float:
        """How much slower than known this job has been so far, over all stages seen."""
        expected = actual = DRIFT_SECONDS
        for key, spent in self._seen.items():
            stage = key.removeprefix(FIRST)
            if spent.units and stage != START:
                expected += spent.units * known_rate(self.history, stage, key != stage) * self.pace
                actual += spent.seconds
        return min(DRIFT[1], max(DRIFT[0], actual / expected))

    def _spend(self, stage: str, seconds: float, units: float) -> None:
        spent = self._seen.setdefault(_key(stage, self._in_first_point()), Spent())
        spent.seconds += max(0.0, seconds)
        spent.units += max(0.0, units)

    def _note_units(self, stage: str, total: float) -> None:
        self._usual.setdefault(stage, total)
        if self.point < len(self.plan):
            planned = self.plan[self.point]
            if stage not in planned:
                self._unplanned[stage] = total
            planned[stage] = max(planned.get(stage, 0.0), self._behind.get(stage, 0.0) + total)

    def _ahead(self) -> list[int]:
        """Points that are still to come; trials are not always claimed in the order of the points."""
        return [point for point in range(len(self.plan)) if point != self.point and point not in self._closed]

    def _leave_point(self) -> None:
        self._whole_points += 1
        self._closed.add(self.point)
        for key, spent in self._seen.items():
            if not key.startswith(FIRST):
                spent.seconds, spent.units = spent.seconds * DECAY, spent.units * DECAY
        for later in self._ahead():
            if self.plan[later]:
                for stage in self._unplanned.keys() - ONCE:
                    self.plan[later].setdefault(stage, self._unplanned[stage])
        self._behind, self._unplanned = {}, {}


def relative_error(predicted: float, actual: float) -> float | None:
    """|predicted − actual| / actual; None where less than a second was left, which says nothing."""
    return abs(predicted - actual) / actual if actual >= 1.0 else None


def blend(old: float | None, new: float) -> float:
    """A stored rate after another job: half of what was known, half of what was seen."""
    return new if old is None else (old + new) / 2


def known_rate(history: Rates, stage: str, first: bool) -> float:
    """Seconds per unit from outside this job: this stage, its kin (``generate`` of ``generate:harmful``), a guess."""
    for key in (_key(stage, first), _key(stage, not first)):
        if key in history:
            return history[key]
    kin = _kin(history, stage)
    return sum(kin) / len(kin) if kin else GUESS.get(stage.partition(":")[0], 0.0)


def is_known(history: Rates, stage: str) -> bool:
    """Whether earlier jobs showed how long a stage, or its kin, takes."""
    return bool(_kin(history, stage))


def _kin(history: Rates, stage: str) -> list[float]:
    family = stage.partition(":")[0]
    return [rate for key, rate in history.items() if key.removeprefix(FIRST).partition(":")[0] == family]


def _key(stage: str, first: bool) -> str:
    return FIRST + stage if first else stage
