"""Tables for people: a run's metrics, facts, answers and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from sstmerge_core import methods, metrics, words
from sstmerge_core.plots.measures import MEASURES, interval, number
from sstmerge_core.words import plain, run_address, run_link

if TYPE_CHECKING:
    from sstmerge_core.catalog import Entry
    from sstmerge_core.recipe import Recipe

METRIC_NAMES = {metric.name: metric.title for metric in metrics.metrics()}


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with `name`: its own or the recipe's, of a single adapter which one it is, and what is unusual.

    That is another split than the test prompts, and the status where it did not finish. Runs of a pair that are called
    alike are told apart by how many prompts they answered, and by the seed.
    """
    names = runs["label"].copy()
    alone = (runs["method"].eq("adapter") & ~_known(runs, "own_name")).to_numpy()
    if alone.any():
        names[alone] = runs.loc[alone, "pair"] + " alone"
    for column, usual in (("split", "test"), ("status", "finished")):
        other = (runs[column].notna() & runs[column].ne(usual)).to_numpy()
        if other.any():  # a column without any value is not one of text
            names[other] = names[other] + " · " + runs.loc[other, column]
    counts = runs.get("n", runs.get("resistance_n", pd.Series(np.nan, runs.index)))
    if "utility_n" in runs:
        counts = counts.fillna(runs["utility_n"])
    seeds = runs.get("seed", pd.Series(np.nan, runs.index))
    names = apart(names, runs["pair"], (in_words("n={:.0f}", counts), in_words("seed {:.0f}", seeds)))
    return runs.assign(name=names)


def apart(names: pd.Series, groups: pd.Series | None, differences: Sequence[pd.Series]) -> pd.Series:
    """`names`, told apart within each group by the first of `differences` (texts, empty: not known) that do so."""
    for more in differences:
        key = names if groups is None else groups.fillna("") + "\n" + names
        twice = key.duplicated(keep=False) & more.ne("")
        if twice.any():
            kinds = more[twice].groupby(key[twice]).transform("nunique")
            tells = kinds.gt(1).reindex(names.index, fill_value=False)
            names = names.where(~tells, names + " · " + more)
    return names


def in_words(form: str, values: pd.Series) -> pd.Series:
    """Each value in the words of `form`; empty where there is none."""
    return pd.Series(["" if pd.isna(one) else form.format(one) for one in values], index=values.index, dtype=object)


def _known(runs: pd.DataFrame, column: str) -> pd.Series:
    return runs[column].notna() if column in runs else pd.Series(False, runs.index)


def brief(runs: pd.DataFrame, *, pair: bool = False) -> str:
    """Runs as a Markdown table: the name as a link, the pair if asked, and the three measures, best column first.

    Where `runs` has the column ``tags`` (a list each, or None), they stand behind the name.
    """
    measures = [MEASURES[name] for name in ("resistance", "utility", "over_refusal") if runs[name].notna().any()]
    heads = ["Run", *(["Pair"] if pair else [])]
    heads += [f"{measure.title}\N{NO-BREAK SPACE}{'↑' if measure.higher_is_better else '↓'}" for measure in measures]
    lines = [heads, [":--"] * (len(heads) - len(measures)) + ["--:"] * len(measures)]
    for run in named(runs).to_dict("records"):
        source = " (reported)" if run["source"] == "reported" else ""
        tags = "".join(f" :gray-badge[{plain(tag)}]" for tag in run.get("tags") or ())
        cells = [
            f"{run_link(run['name'], run['run_id'])}{source}{tags}",
            *([plain(run["pair"])] if pair else []),
        ]
        lines.append(cells + [number(run[measure.column]) for measure in measures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(rows: pd.DataFrame) -> str:
    """A frame of text as a Markdown table, its first column on the left and the others on the right."""
    lines = [list(map(str, rows.columns)), [":--", *["--:"] * (len(rows.columns) - 1)]]
    lines += [[plain(str(cell)) for cell in row] for row in rows.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def metric_rows(rows: pd.DataFrame, status_words: Mapping[str, str]) -> pd.DataFrame:
    """`rows` of the metrics table with an interval as text and each status in words; headline metrics first."""
    order = {name: place for place, name in enumerate(METRIC_NAMES)}
    places = rows["metric"].map(lambda name: order.get(name, len(order)))
    rows = rows.assign(_place=places).sort_values(["_place", "suite", "judge"], kind="stable")
    names = rows.get("reference_name", rows["reference"])
    names = names.where(names.notna(), "")
    table = pd.DataFrame(
        {
            "metric": rows["metric"].map(lambda name: METRIC_NAMES.get(name, name)),
            "suite": rows["suite"],
            "value": rows["value"].round(3),  # halves as everywhere else here, not as a browser rounds them
            "interval": [interval(low, high) for low, high in zip(rows["ci_low"], rows["ci_high"], strict=True)],
            "n": rows["n"],
            "judge": rows["judge"],
            "status": ["" if status == "ok" else status_words.get(status, status) for status in rows["status"]],
            "compared with": [
                f"{run_address(reference)}#{quote(name or reference)}" if reference else None
                for reference, name in zip(rows["reference"], names, strict=True)
            ],
        }
    )
    return table.dropna(axis="columns", how="all")


def method_titles(names: Sequence[str], most: int = 4) -> str:
    """``Linear · TIES · 3 more``: a few methods' titles as text."""
    titles = [methods.get(name).title for name in names]
    shown = titles if len(titles) <= most else [*titles[: most - 1], f"{len(titles) - most + 1} more"]
    return " · ".join(plain(title) for title in shown)


def grid(recipes: Sequence[Recipe]) -> pd.DataFrame:
    """The points of a sweep, one row each; parameters that do not vary are left out."""
    rows = pd.DataFrame([recipe.parameters for recipe in recipes])
    varying = [name for name in rows if rows[name].dropna().astype(str).nunique() > 1 or name == "alpha"]
    rows.insert(0, "method", [methods.get(recipe.method).title for recipe in recipes])
    return rows[["method", *varying]].rename(columns={"alpha": "α"})


def facts(run: Mapping[str, Any]) -> pd.DataFrame:
    """What was merged and how, two columns of text; only what is known."""
    pairs: list[tuple[str, Any]] = [
        ("Base model", run["base"]),
        ("Utility adapter", run["utility"]),
        ("Safety adapter", run["safety"]),
        ("Method", run["method"]),
        *((name, value) for name, value in run["parameters"].items() if run["source"] != "reported"),
        ("Prompts", run["split"]),
        ("Table of the report", run["parameters"].get("table") if run["source"] == "reported" else None),
        ("Run", run["run_id"]),
        ("Device", run["device"]),
        ("Number format", run["dtype"]),
        ("Answered by", run["backend"]),
        ("Duration", words.duration(run["seconds"]) if run["seconds"] is not None else None),
        ("Peak memory", words.size(run["peak_memory_bytes"]) if run["peak_memory_bytes"] else None),
        ("Started by", run["user"]),
        *run["versions"].items(),
    ]
    known = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    return pd.DataFrame(known, columns=["what", "value"])


def side_by_side(facts: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Facts named ``utility …`` and ``safety …`` beside each other, and those that concern both."""
    both = {name: value for name, value in facts.items() if not name.startswith(("utility ", "safety "))}
    names = list(dict.fromkeys(name.split(" ", 1)[1] for name in facts if name not in both))
    rows = [(name, facts.get(f"utility {name}", ""), facts.get(f"safety {name}", "")) for name in names]
    return pd.DataFrame(rows, columns=["", "utility", "safety"]), both


def score_names(entries: Sequence[Entry]) -> list[str]:
    """The measures that any of the adapters has been scored on."""
    found = {name for entry in entries for name, value in entry.scores.items() if isinstance(value, (int, float))}
    order = list(METRIC_NAMES)

    def place(name: str) -> tuple[int, str]:
        """Names are a metric, or a metric and its suite: ``rouge_l_facts``."""
        return next((order.index(known) for known in order if name.startswith(known)), len(order)), name

    return sorted(found, key=place)


def adapters(entries: Sequence[Entry]) -> pd.DataFrame:
    """The catalogue, scores first; a column in which nothing is known is left out."""
    rows = [
        {"name": entry.name, "role": entry.role or "either", "task": entry.suite or None}
        | {name: entry.scores.get(name) for name in score_names(entries)}
        | {
            "rank": entry.rank,
            "alpha": entry.alpha,
            "modules": entry.modules,
            "tags": list(entry.tags) or None,
            "about": entry.description or None,
            "base model": entry.base_name,
            "size": words.size(entry.bytes),
            "folder": str(entry.path),
            "sha256": entry.sha256[:12],
        }
        for entry in entries
    ]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def suites(samples: pd.DataFrame) -> list[str]:
    """The suites that have answers, the one that measures safety first."""
    return sorted(set(samples["suite"]), key=lambda name: (name != "harmful", name))


def beside(samples: pd.DataFrame, by_hand: pd.DataFrame) -> pd.DataFrame:
    """`samples` with the columns ``hand`` and ``reader`` of `by_hand`; None where nobody labelled the answer."""
    found = samples.merge(by_hand[["suite", "prompt_id", "hand", "reader"]], how="left", on=["suite", "prompt_id"])
    known = ("label", "hand", "reader")
    return found.assign(**{name: found[name].astype(object).where(found[name].notna(), None) for name in known})


def answers(samples: pd.DataFrame, label_words: Mapping[str, str]) -> pd.DataFrame:
    """What a reader wants of each sample, the verdicts in words; the labels by hand where there are any."""
    names = ["prompt", "response", "label", "reference", "topic", "n_tokens"]
    if "asked" in samples and samples["asked"].notna().any():
        names.append("asked")
    if "hand" in samples and samples["hand"].notna().any():
        names[3:3] = ["hand", "reader"]
    shown = samples.assign(reader=samples["reader"].str.partition(":")[2]) if "reader" in names else samples
    shown = shown[names if "reader" in names and shown["reader"].any() else [one for one in names if one != "reader"]]
    said = {
        name: [label_words.get(label, label) for label in shown[name]] for name in ("label", "hand") if name in names
    }
    return shown.assign(**said)


def search(samples: pd.DataFrame, text: str, *, labels: Sequence[str] = ()) -> pd.DataFrame:
    """The samples with one of `labels` (none: all) whose prompt or answer contains every word of `text`."""
    chosen = samples[samples["label"].isin(labels)] if labels else samples
    haystack = (chosen["prompt"].fillna("") + " " + chosen["response"].fillna("")).str.lower()
    for word in text.lower().split():
        inside = haystack.str.contains(word, regex=False)
        chosen, haystack = chosen[inside], haystack[inside]
    return chosen


def timeline(stages: pd.DataFrame) -> pd.DataFrame:
    """Events of a run in order: when, what, how long, how much."""
    what = stages["stage"].fillna(stages["event"].str.replace("_", " "))
    return pd.DataFrame(
        {
            "started": stages["t"],
            "what": what,
            "status": stages["status"].fillna(""),
            "seconds": stages["seconds"],
            "units": stages["units"],
            "note": stages["note"].fillna(""),
        }
    )
