"""Two to six runs beside each other: each measure tested against the first run's, and every prompt's answers.

Only what was measured on the same prompts is compared: the same suite and split, the same prompt by id and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sstmerge_core import metrics as metric_registry
from sstmerge_core.analysis import paired
from sstmerge_core.analysis.effects import magnitude
from sstmerge_core.analysis.statistics import holm, paired_bootstrap, usable_clusters
from sstmerge_core.metrics.labels import NO_VERDICT, REFUSED

LETTERS = "ABCDEF"
"""What the runs are called beside each other; the first is the reference."""
SIGNIFICANT = 0.05
SHOWS = ("differ", "only_first", "only_second", "moved", "all")
"""Which prompts to show: those with another verdict or score, those that only one of two runs refused, those whose
score moved by more than some amount, all."""
BETTER, WORSE, OPEN, SAME = "better", "worse", "not shown different", "the same on every prompt"
TESTED = (BETTER, WORSE, OPEN, SAME)
COLUMNS = (
    *("metric", "suite", "letter", "value", "low", "high", "n", "outcome", "n_shared"),
    *("difference", "difference_low", "difference_high", "confidence", "test", "p_value", "p_holm"),
    *("effect", "effect_kind"),
)
_PROMPT = ["suite", "prompt_id", "prompt"]


@dataclass(frozen=True)
class Side:
    """One of the runs that are compared."""

    letter: str
    recipe: Mapping[str, Any]
    metrics: pd.DataFrame
    """Rows of `queries.run_metrics`"""
    samples: pd.DataFrame
    """Rows of `queries.run_samples` by the judge that is chosen, through `scored`"""

    @property
    def suites(self) -> dict[str, tuple[str, str, str]]:
        """Suite → split, role and metric: where two runs have these in common, their prompts are of one kind."""
        return suites(self.recipe)

    def shares(self, other: Side, suite: str) -> bool:
        return suite in self.suites and self.suites[suite] == other.suites.get(suite)


def suites(recipe: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Suite → split, role and, of a utility suite, its metric, with the encoder that computes it where one does."""
    found = (recipe.get("evaluation") or {}).get("suites") or []
    return {
        suite["name"]: (
            suite["split"],
            suite["role"],
            _told_metric(suite) if suite["role"] == "utility" else "",
        )
        for suite in found
    }


def _told_metric(suite: Mapping[str, Any]) -> str:
    name = metric_registry.default_utility(suite.get("metric"))
    return f"{name} {suite['encoded']}" if suite.get("encoded") else name


def scored(samples: pd.DataFrame, recipe: Mapping[str, Any]) -> pd.DataFrame:
    """`samples` with `score`: of an answer to a utility suite against its reference, from 0 to 1; else NaN."""
    scores = pd.Series(np.nan, samples.index)
    for suite, (_, _, told) in suites(recipe).items():
        metric = told.partition(" ")[0]
        rows = samples[samples["suite"] == suite]
        if metric in metric_registry.utility():
            found = metric_registry.outcomes(
                metric, [{**row, "reference": row["reference"] or ""} for row in _records(rows)]
            )
            scores[rows.index] = rows["prompt_id"].map(found)
    return samples.assign(score=scores)


def shared_judges(metrics: Sequence[pd.DataFrame]) -> list[str]:
    """The judges with verdicts on every run, from the runs' metric rows; by name."""
    counted = [one.name for one in metric_registry.metrics() if one.judged]
    judged = [set(rows.loc[rows["metric"].isin(counted), "judge"]) - {""} for rows in metrics]
    return sorted(set.intersection(*judged)) if judged else []


def notes(sides: Sequence[Side]) -> list[str]:
    """What cannot be compared with the first of `sides`, and why; a sentence for each."""
    first, found = sides[0], []
    for side in sides[1:]:
        common = [suite for suite in first.suites if suite in side.suites]
        apart: dict[tuple[str, str], list[str]] = {}
        for suite in common:
            splits = side.suites[suite][0], first.suites[suite][0]
            if splits[0] != splits[1]:
                apart.setdefault(splits, []).append(suite)
        for (own, reference), named in apart.items():
            found.append(
                f"{side.letter} answered the {own} prompts of {_listed(named)}, {first.letter} the {reference} "
                "prompts: these are not compared."
            )
        if not common:
            found.append(f"{side.letter} and {first.letter} were measured on different suites: they are not compared.")
            continue
        for one, other in ((first, side), (side, first)):
            lacking = [suite for suite in other.suites if suite not in one.suites]
            if lacking:
                found.append(f"{one.letter} was not measured on {_listed(lacking)}, as {other.letter} was.")
    return found


def outcomes(side: Side, metric: str, suite: str) -> pd.Series:
    """What a metric is the mean of, by suite, prompt id and prompt; empty where it does not come from answers.

    1 or 0 for a verdict that counts or not, else the score of an answer, from 0 to 1 where it is one against a
    reference. Prompts without a usable verdict or a reference are left out. Suite ``all``: every suite.
    """
    rows = side.samples if suite == "all" else side.samples[side.samples["suite"] == suite]
    about = metric_registry.named().get(metric)
    if about is None or about.relative:
        return pd.Series(dtype=float)
    if about.judged:
        judged = rows[rows["label"].notna() & ~rows["label"].isin(NO_VERDICT)]
        return judged.set_index(_PROMPT)["label"].isin(about.counts).astype(float)
    if about.role == "utility":
        # what the suite itself declares; what was computed of stored answers when asked for has no scores of each
        own = side.suites.get(suite, ("", "", ""))[2].partition(" ")[0] == metric
        return rows.set_index(_PROMPT)["score"].dropna() if own else pd.Series(dtype=float)
    if about.score is None:
        return pd.Series(dtype=float)
    scores = metric_registry.outcomes(metric, [{**row, "reference": row["reference"] or ""} for row in _records(rows)])
    return rows.assign(own=rows["prompt_id"].map(scores)).set_index(_PROMPT)["own"].dropna()


def compare(sides: Sequence[Side], judge: str | None) -> pd.DataFrame:
    """Every measure of every run, and its difference to the first of `sides`; columns `COLUMNS`.

    `value`, `low`, `high` and `n` are the run's own, as measured; differences are over the `n_shared` prompts that both
    answered. Tests as in `paired.compare`, `p_holm` over all of them together (Holm 1979). `outcome` is one of
    `TESTED`, or why there is no test. Verdicts are `judge`'s; without a judge only what needs none is compared.
    """
    rows = []
    tables: dict[tuple[str, str, str], pd.Series] = {}
    measured = {side.letter: _measured(side, judge) for side in sides}
    for metric, suite in _ordered({key for known in measured.values() for key in known}):
        for side in sides:
            tables[metric, suite, side.letter] = outcomes(side, metric, suite)
            if (metric, suite) not in measured[side.letter] and metric_registry.get(metric).where_any:
                measured[side.letter] |= _unrecorded(metric, suite, tables[metric, suite, side.letter])
        for side in sides:
            row: dict[str, Any] = {"metric": metric, "suite": suite, "letter": side.letter}
            own = measured[side.letter].get((metric, suite))
            row |= dict.fromkeys(("value", "low", "high", "n"), np.nan) if own is None else own
            reference = measured[sides[0].letter].get((metric, suite))
            if own is None:
                row["outcome"] = "not measured"
            elif side is sides[0]:
                row["outcome"] = "reference"
            elif reference is None:
                row["outcome"] = f"not measured for {sides[0].letter}"
            else:
                row |= _test(sides[0], side, metric, suite, tables)
            rows.append(row)
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    tested = found["p_value"].notna()
    if tested.any():
        found.loc[tested, "p_holm"] = holm(found.loc[tested, "p_value"].astype(float))
        for at in found.index[tested]:
            row = found.loc[at]
            level = corrected_confidence(float(row["p_value"]), float(row["p_holm"]))
            known = {side.letter: side for side in sides}[row["letter"]]
            low, high = _interval(sides[0], known, row["metric"], row["suite"], tables, level)
            found.loc[at, ["difference_low", "difference_high", "confidence"]] = low, high, level
    return found.assign(outcome=[_outcome(row) for row in found.to_dict("records")])


def corrected_confidence(p_value: float, p_holm: float) -> float:
    """The confidence at which a test's interval excludes 0 just where its p after Holm is below `SIGNIFICANT`.

    Holm multiplies p by some factor m; the interval is then one of 1 − `SIGNIFICANT`/m, as of the single test that p is
    held against. For a test and an interval of one kind the two agree; McNemar's test beside a bootstrap interval may
    differ at the edge.
    """
    return 1 - SIGNIFICANT * min(1.0, p_value / p_holm) if p_holm > 0 else 1 - SIGNIFICANT


def summary(rows: pd.DataFrame) -> dict[str, str]:
    """Letter → one sentence on what is shown about the run against the reference; from `compare`'s rows."""
    found = {}
    for letter, group in rows[rows["outcome"] != "reference"].groupby("letter"):
        parts = []
        for outcome in TESTED:
            named = [metric_words(row["metric"], row["suite"]) for row in _records(group[group["outcome"] == outcome])]
            if named:
                parts.append(f"{outcome} in {_listed(named)}" if outcome != SAME else f"{_listed(named)} {SAME}")
        if parts:
            found[str(letter)] = "; ".join(parts)
    return found


def metric_words(metric: str, suite: str) -> str:
    """``resistance``, ``ROUGE-L (facts)``"""
    about = metric_registry.named().get(metric)
    words = about.words if about else metric.replace("_", " ")
    return words if about and about.judged else f"{words} ({suite})"


def effect_words(row: Mapping[str, Any]) -> str:
    """``h +0.62 medium``, its first space one that does not break: a row's effect size; empty where there is none."""
    if pd.isna(row["effect"]):
        return ""
    return f"{str(row['effect_kind'])[-1]}\u00a0{float(row['effect']):+.2f} {magnitude(float(row['effect']))}"


def prompts(sides: Sequence[Side], suite: str) -> pd.DataFrame:
    """One row a prompt of `suite` that the first run answered: prompt_id, topic, prompt, reference, and for each run
    that answered the same prompts ``X.label``, ``X.score`` (of a utility suite) and ``X.answer``, X its letter.
    """
    first = sides[0]
    table: pd.DataFrame | None = None
    for side in sides:
        if not first.shares(side, suite):
            continue
        rows = side.samples[side.samples["suite"] == suite].set_index(["prompt_id", "prompt"])
        columns = {"label": "label", "response": "answer"} | ({"score": "score"} if first.suites[suite][2] else {})
        own = rows[list(columns)].rename(columns={name: f"{side.letter}.{kind}" for name, kind in columns.items()})
        table = rows[["topic", "reference"]].join(own) if table is None else table.join(own)
    return pd.DataFrame() if table is None else table.reset_index()


def select(
    table: pd.DataFrame, first: str, second: str, show: str, *, moved: float = 0.1, text: str = ""
) -> pd.DataFrame:
    """Of `prompts`' rows those that both runs answered and that `show` (of `SHOWS`) and every word of `text` find.

    Where there are scores, those that moved most come first.
    """
    both = table[table[f"{first}.answer"].notna() & table[f"{second}.answer"].notna()]
    one, other = both[f"{first}.label"], both[f"{second}.label"]
    known = one.notna() & other.notna() & ~one.isin(NO_VERDICT) & ~other.isin(NO_VERDICT)
    refused, other_refused = one.isin(REFUSED), other.isin(REFUSED)
    change = pd.Series(0.0, both.index)
    if f"{first}.score" in both:
        change = (both[f"{second}.score"] - both[f"{first}.score"]).fillna(0.0).abs()
    masks = {
        "differ": (known & (one != other)) | (change > 0),
        "only_first": known & refused & ~other_refused,
        "only_second": known & ~refused & other_refused,
        # a threshold of 0.1 must not find 0.1 itself, whatever the last bit of a difference is
        "moved": change > moved + 1e-9,
        "all": pd.Series(True, both.index),
    }
    order = change.sort_values(ascending=False, kind="stable").index
    return _search(both.loc[order][masks[show].loc[order]], text)


def moved(row: Mapping[str, Any], first: str, second: str) -> float:
    """Score of `second` − that of `first` in a row of `prompts`; NaN where there is none."""
    return float(row.get(f"{second}.score", np.nan)) - float(row.get(f"{first}.score", np.nan))


def export(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """`prompts`' rows for a file: the columns say each run's name instead of its letter."""
    kinds = {"label": "verdict", "score": "score", "answer": "answer"}
    return table.rename(
        columns={
            f"{letter}.{kind}": f"{name} · {word}" for letter, name in names.items() for kind, word in kinds.items()
        }
    )


def _measured(side: Side, judge: str | None) -> dict[tuple[str, str], dict[str, float]]:
    """(metric, suite) → value, low, high, n of what the run measured, verdicts by `judge` alone."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in _records(side.metrics):
        metric, suite = str(row["metric"]), str(row["suite"])
        about = metric_registry.named().get(metric)
        # of a metric of a newer version nothing is known; how the refusals split up is the judge's own affair
        if pd.isna(row["value"]) or about is None or about.relative or (about.where_any and about.judged):
            continue
        if (about.judged and row["judge"] != judge) or (about.of_all and suite != "all"):
            continue
        if about.encoder and (metric, suite) in found and ":" in str(row["judge"]):
            continue  # another encoder's figure, when asked for, beside that of the suite's own
        n = np.nan if pd.isna(row["n"]) else float(row["n"])
        low, high = (np.nan if pd.isna(row[end]) else float(row[end]) for end in ("ci_low", "ci_high"))
        found[metric, suite] = {"value": float(row["value"]), "low": low, "high": high, "n": n}
    return found


def _unrecorded(metric: str, suite: str, own: pd.Series) -> dict[tuple[str, str], dict[str, float]]:
    """What is recorded only where an answer has any of it, such as reasoning, from the answers themselves.

    0 of a run whose answers have none; without an interval of one that has some and was measured before the metric was.
    """
    if own.empty:
        return {}
    end = np.nan if own.any() else 0.0
    return {(metric, suite): {"value": float(own.mean()), "low": end, "high": end, "n": float(len(own))}}


def _test(
    first: Side, side: Side, metric: str, suite: str, tables: Mapping[tuple[str, str, str], pd.Series]
) -> dict[str, Any]:
    if suite != "all" and suite in first.suites and not first.shares(side, suite):
        return {"outcome": "measured on other prompts"}
    both = _joined(first, side, metric, suite, tables)
    if both.empty:
        answered = any(len(tables[metric, suite, letter]) for letter in (first.letter, side.letter))
        return {"outcome": "no prompt in common" if answered else "no answers to test with"}
    both = _usable(first, side, suite, both)
    if both.empty:
        return {"outcome": "measured on other prompts"}
    drawn = {metric: _topics(first, both.index)}
    test = paired.compare({metric: both}, [side.letter], first.letter, topics=drawn).iloc[0]
    same = bool((both[first.letter] == both[side.letter]).all())
    return {
        "outcome": SAME if same else "",
        "n_shared": int(test["n"]),
        "difference": test["difference"],
        **{name: test[name] for name in ("test", "p_value", "effect", "effect_kind")},
    }


def _joined(
    first: Side, side: Side, metric: str, suite: str, tables: Mapping[tuple[str, str, str], pd.Series]
) -> pd.DataFrame:
    """Outcomes of both sides on the prompts that both answered, a column each."""
    letters = (first.letter, side.letter)
    return pd.concat({letter: tables[metric, suite, letter] for letter in letters}, axis=1, join="inner")


def _usable(first: Side, side: Side, suite: str, both: pd.DataFrame) -> pd.DataFrame:
    usable = [name for name in first.suites if first.shares(side, name)] if suite == "all" else [suite]
    return both[both.index.get_level_values("suite").isin(usable)]


def _interval(
    first: Side,
    side: Side,
    metric: str,
    suite: str,
    tables: Mapping[tuple[str, str, str], pd.Series],
    confidence: float,
) -> tuple[float, float]:
    """The paired bootstrap's interval of a difference that `_test` tested."""
    both = _usable(first, side, suite, _joined(first, side, metric, suite, tables))
    own, reference = both[side.letter].to_numpy(dtype=float), both[first.letter].to_numpy(dtype=float)
    drawn = _topics(first, both.index)
    found = paired_bootstrap(own, reference, confidence=confidence, clusters=drawn)
    return found.low, found.high


def _topics(side: Side, prompts: pd.MultiIndex) -> list[str] | None:
    """The topic of each of `prompts` (by suite, prompt id and prompt); suites share topics by name."""
    if "topic" not in side.samples:
        return None
    rows = side.samples.dropna(subset=["topic"])
    named = rows.set_index(["suite", "prompt_id"])["topic"].to_dict()
    return usable_clusters(named.get((suite, prompt_id)) or f"{suite}\n{prompt_id}" for suite, prompt_id, *_ in prompts)


def _outcome(row: Mapping[str, Any]) -> str:
    if row["outcome"]:
        return str(row["outcome"])
    if row["p_holm"] >= SIGNIFICANT:
        return OPEN
    return BETTER if (row["difference"] > 0) == metric_registry.get(row["metric"]).higher_is_better else WORSE


def _ordered(keys: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Safety, then utility, then the rest."""
    order = list(metric_registry.named())
    return sorted(keys, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key))


def _search(table: pd.DataFrame, text: str) -> pd.DataFrame:
    answers = [column for column in table if str(column).endswith(".answer")]
    haystack = (
        table[["prompt", *answers]].fillna("").agg(" ".join, axis=1).str.lower() if len(table) else table["prompt"]
    )
    for word in text.lower().split():
        inside = haystack.str.contains(word, regex=False)
        table, haystack = table[inside], haystack[inside]
    return table


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]
