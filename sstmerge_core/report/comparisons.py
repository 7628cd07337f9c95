"""Runs of a chapter against each other: the greatest sums, the single adapters, the fronts, the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sstmerge_core import words
from sstmerge_core.analysis import fronts, paired
from sstmerge_core.analysis.best import best_method
from sstmerge_core.analysis.effects import magnitude
from sstmerge_core.analysis.statistics import holm, p_text
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.plots.style import style
from sstmerge_core.report import tables
from sstmerge_core.report.basis import basis
from sstmerge_core.report.document import (
    Block,
    Bullets,
    Section,
    Table,
    drop_empty,
    figure,
    figures_sentence,
    listed,
    measure_cell,
    point_link,
    runs_link,
)
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.points import records
from sstmerge_core.words import plain

SIGNIFICANT = 0.05
_SCORES = {"Sum": ("resistance", "utility"), "Resistance": ("resistance",), "Utility": ("utility",)}
_TOLD = 8
"""Pairs of fronts that are told apart in a sentence each, the greatest differences first"""
CLOSEST = (
    "Each method stands with its setting closest to resistance 1 and utility 1, chosen on the prompts that tell it, "
    "which flatters it."
)
SIDES = {"utility": "the utility adapter alone", "safety": "the safety adapter alone", "base": "the base model"}


def top_ten(chapter: Chapter) -> Section:
    """The ten greatest sums; where answers are there, each tested against the first."""
    ranked = tables.top(chapter.found)
    totals = against_first(chapter, ranked)
    head = ("Run", "Resistance ↑", "Utility ↑", "Sum ↑", "Sum − first", "p (Holm)")
    rows = []
    for place, row in enumerate(records(ranked), start=1):
        cells = [f"{place}. {point_link(row)}"]
        cells += [measure_cell(row, name, chapter.digits) for name in ("resistance", "utility", "total")]
        total, p_value = totals.get(row["setting"], (None, np.nan))
        cells.append(figure(total.difference, total.low, total.high, sign=True) if total else "–")
        cells.append(p_text(p_value))
        rows.append(tuple(cells))
    counts = ranked["method"].value_counts()
    told = listed((f"{count} {plain(style(str(method)).title)}" for method, count in counts.items()), most=9)
    sentence = f"Of the {len(ranked)} greatest sums: {told}."
    if totals:
        sentence += " " + equals_sentence(ranked, totals)
    caption = (
        f"{basis(chapter, ('resistance', 'utility'))} Ranked on the prompts that tell them, which flatters the first."
    )
    return Section("Ten greatest sums", (sentence, drop_empty(Table(head, tuple(rows), caption=caption))), level=3)


def single_adapters(chapter: Chapter) -> Section | None:
    """Each method's best-balanced run beside the adapters alone, and how many merges are less safe than the utility
    adapter that they were made from."""
    chosen = tables.best_of_each_method(chapter.found)
    if not {"utility", "safety"} & set(chapter.references) or chosen.empty:
        return None
    blocks: list[Block] = [f"{CLOSEST} {basis(chapter)}"]
    if "utility" in chapter.references:
        blocks.append(below_sentence(chapter))
    for side in ("utility", "safety"):
        if side in chapter.references:
            table = _side_table(chapter, chosen, side)
            blocks += [table.caption, replace(table, caption="")]
    return Section("Beside the single adapters", tuple(blocks), level=3)


def front_comparison(chapter: Chapter) -> Section | None:
    """Hypervolume of each method's front, and every two fronts compared in words."""
    groups = _fronts_of(chapter)
    if not groups:
        return None
    titles = {method: plain(style(method).title) for method in groups}
    by_setting = chapter.found.set_index("setting")
    if chapter.axes:
        planes = [fronts.Axis(chapter.axes[name], chapter.topics.get(name)) for name in ("resistance", "utility")]
        volumes = {method: fronts.hypervolume_interval(planes, runs) for method, runs in groups.items()}
        compared = fronts.compare_fronts(planes, groups)
    else:
        points = {
            m: by_setting.loc[runs, ["resistance", "utility"]].to_numpy(dtype=float) for m, runs in groups.items()
        }
        volumes = {
            method: fronts.Hypervolume(fronts.hypervolume(rows), np.nan, np.nan) for method, rows in points.items()
        }
        compared = fronts.compare_figures(points)
    full = _volumes_of_three(chapter, groups)
    head = ("Method", "Runs", "Hypervolume ↑", "with over-refusal ↑")
    rows = [
        (
            runs_link(chapter.pair, _run_ids(by_setting, groups[method]), titles[method]),
            str(len(groups[method])),
            figure(*volumes[method]),
            figure(*full[method]) if method in full else "–",
        )
        for method in sorted(groups, key=lambda name: -volumes[name].value)
    ]
    caption = (
        "Reference point (0, 0); the third axis is 1 − over-refusal. More runs give a front more chances to be high."
    )
    if chapter.axes:
        caption += (
            " Hypervolumes are of these runs, told on other prompts than chose the front, with 95 % intervals over "
            "prompts, the same for every method. Two fronts are compared over prompts and settings, at the smaller "
            f"number of settings; of fewer than {fronts.LEAST} each only these runs are spoken of."
        )
    caption = f"{basis(chapter)} {caption}"
    ordered = sorted(groups, key=lambda name: -volumes[name].value)
    sentences = _front_sentences(compared, groups, titles)
    blocks: tuple[Block, ...] = (drop_empty(Table(head, tuple(rows), caption=caption)),)
    if len(ordered) > 1:
        blocks += (front_matrix(compared, ordered, titles),)
    if sentences:
        blocks += (Bullets(sentences),)
    return Section("Is one front above another?", blocks, level=3)


def front_matrix(compared: pd.DataFrame, ordered: Sequence[str], titles: Mapping[str, str]) -> Table:
    """Every two fronts in one table: what is shown of the row's against the column's, whose numbers are the rows'."""
    cells: dict[tuple[str, str], str] = {}
    for row in records(compared):
        first, second = str(row["first"]), str(row["second"])
        cells[first, second], cells[second, first] = _relation(row)
    head = ("Front of", *(str(number) for number in range(1, len(ordered) + 1)))
    rows = [
        (f"{number}. {titles[own]}", *("" if own == other else cells.get((own, other), "–") for other in ordered))
        for number, own in enumerate(ordered, start=1)
    ]
    told = set(cells.values())
    legend = [text for sign, text in _LEGEND.items() if any(sign in cell for cell in told)]
    return Table(head, tuple(rows), caption=f"The row's front against the column's. {'; '.join(legend)}.")


_LEGEND = {
    "**above**": "**above**: encloses more and covers every point of the other, p < 0.05 after Holm",
    "**more**": "**more**: encloses more, though the other has points beyond it, p < 0.05 after Holm",
    "below": "below and less: the same from the other side",
    "(runs)": "(runs): only of these runs, there are too few settings for the methods",
    "open": "open: not told apart",
    "higher": "higher and lower: by the figures alone, which nothing can test",
}
_SEEN_FROM_BELOW = {"**above**": "below", "**more**": "less", "higher": "lower", "open": "open", "equal": "equal"}


def _relation(row: Mapping[str, Any]) -> tuple[str, str]:
    """What a row of `compare_fronts` says of the first against the second, and of the second against the first."""
    if pd.isna(row["low"]):
        told = "higher" if row["difference"] > 0 else "equal"
        return told, _SEEN_FROM_BELOW[told]
    few = row["answer"] == fronts.FEW
    answer, p_value = (row["runs_answer"], row["runs_p_holm"]) if few else (row["answer"], row["p_holm"])
    told = ("**above**" if row["covers"] else "**more**") if answer == "yes" else "open"
    more = f" {p_text(p_value)}" + (" (runs)" if few and told != "open" else "")
    return told + more, _SEEN_FROM_BELOW[told] + more


def _front_sentences(
    compared: pd.DataFrame, groups: Mapping[str, list[str]], titles: Mapping[str, str]
) -> tuple[str, ...]:
    """A sentence for every two fronts that are told apart; those that have too few settings stand together in one."""
    told: list[dict[str, Any]] = []
    few: list[dict[str, Any]] = []
    for row in records(compared):
        unshown = row["answer"] == fronts.FEW and row["runs_answer"] != "yes"
        if unshown:
            few.append(row)
        elif pd.isna(row["low"]) or "yes" in (row["answer"], row["runs_answer"]) or len(compared) == 1:
            told.append(row)  # the others are open in the matrix
    told.sort(key=lambda row: -abs(row["difference"]))
    sentences = [fronts.front_above(row, titles) for row in told[:_TOLD]]
    if len(told) > _TOLD:
        sentences.append(f"{len(told) - _TOLD} further pairs of fronts are told apart: the matrix has them.")
    if len(few) == 1:
        sentences.append(fronts.front_above(few[0], titles))
    elif few:
        short = {m: len(runs) for m, runs in groups.items() if len(runs) < fronts.LEAST}
        counts = listed((f"{titles[method]} {count}" for method, count in short.items()), most=20)
        sentences.append(
            f"Too few settings to tell {len(few)} pairs of methods apart: at least {fronts.LEAST} of each are needed, "
            f"and there are of {counts}. Nor are their runs told apart by these prompts (paired bootstrap, Holm)."
        )
    return tuple(sentences)


def over_seeds(chapter: Chapter) -> Section | None:
    """Mean, deviation, extremes and tests over seeds, and which method is best; None where no setting has several."""
    many = chapter.found[[len(ids) > 1 for ids in chapter.found["run_ids"]]]
    if many.empty:
        return None
    chosen = tables.best_of_each_method(pd.concat([many, chapter.found[~chapter.found["method"].isin(many["method"])]]))
    names = {row["setting"]: point_link(row) for row in records(chosen)}
    titles = {row["setting"]: plain(style(row["method"]).title) for row in records(chosen)}
    setting_of = {run: row["setting"] for row in records(chosen) for run in row["run_ids"]}
    blocks: list[Block] = [f"{CLOSEST} {basis(chapter, ('resistance', 'utility'))}"]
    head = ("Run", "Seeds", "Mean", "Std", "Least", "Greatest")
    for title, measures in _SCORES.items():
        values = chapter.runs[list(measures)].sum(axis=1, skipna=False)
        scores = chapter.runs[["seed"]].assign(method=chapter.runs["run_id"].map(setting_of), value=values)
        planes = [chapter.axes[name] for name in measures if name in chapter.axes]
        found = best_method(
            scores.dropna(subset=["method", "value"]),
            measure=title.lower(),
            outcomes=planes,
            topics=chapter.drawn(*measures),
            titles=titles,
        )
        rows = [
            (names[row["method"]], str(row["n"]), *(figure(row[key]) for key in ("mean", "std", "min", "max")))
            for row in records(found.summary)
        ]
        blocks += [f"**{title}.** {found.sentence}", Table(head, tuple(rows))]
    return Section("Over seeds", tuple(blocks), level=3)


def against_first(chapter: Chapter, ranked: pd.DataFrame) -> dict[str, tuple[paired.Total, float]]:
    """setting → its sum minus the first's with the p-value after Holm; empty where there are no answers."""
    planes = [chapter.axes[name] for name in ("resistance", "utility") if name in chapter.axes]
    settings = [setting for setting in ranked["setting"] if all(setting in table for table in planes)]
    if len(planes) < 2 or len(settings) < 2 or settings[0] != ranked["setting"].iloc[0]:
        return {}
    drawn = chapter.drawn("resistance", "utility")
    totals = {one: paired.compare_sums(planes, one, settings[0], topics=drawn) for one in settings[1:]}
    adjusted = holm([total.p_value for total in totals.values()])
    return {one: (total, float(p)) for (one, total), p in zip(totals.items(), adjusted, strict=True)}


def equals_sentence(ranked: pd.DataFrame, totals: Mapping[str, tuple[paired.Total, float]]) -> str:
    equal = [row for row in records(ranked) if row["setting"] in totals and totals[row["setting"]][1] >= SIGNIFICANT]
    if not equal:
        return f"Each of the other {len(totals)} has a smaller sum (paired bootstrap, Holm)."
    return (
        f"{len(equal)} of the other {len(totals)} are not told apart from it (paired bootstrap, Holm): "
        f"{listed((point_link(row) for row in equal), most=3)}."
    )


def below_sentence(chapter: Chapter) -> str:
    alone, found = chapter.references["utility"], chapter.found
    below = found[found["resistance"] < alone["resistance"]]
    before = f"{point_link(alone)} ({measure_cell(alone, 'resistance', chapter.digits)})"
    if below.empty:
        return f"No merge resists less than {before}, the utility adapter it was made from."
    counts = below["method"].value_counts()
    of_all = chapter.found["method"].value_counts()
    told = listed(
        (f"{count} of {of_all[method]} {plain(style(str(method)).title)}" for method, count in counts.items()), most=9
    )
    sentence = f"{len(below)} of {words.count(len(found), 'merge')} resist less than {before}: {told}"
    table = chapter.axes.get("resistance")
    if table is None or alone["setting"] not in table:
        return f"{sentence}. By the figures alone the safety adapter made these less safe."
    tests = paired.compare({"resistance": table}, list(below["setting"]), alone["setting"], topics=chapter.topics)
    shown = int((tests["p_holm"] < SIGNIFICANT).sum())
    test = "paired bootstrap by topic" if chapter.topics.get("resistance") else "McNemar"
    return f"{sentence}; of these {shown} beyond chance ({test}, Holm, n = {len(table)} test prompts)."


def _side_table(chapter: Chapter, chosen: pd.DataFrame, side: str) -> Table:
    alone = chapter.references[side]
    changed = tables.differences(chosen, alone)
    tests = paired.compare(chapter.axes, list(chosen["setting"]), alone["setting"], topics=chapter.topics)
    known = {(row["run_id"], row["measure"]): row for row in tests.to_dict("records")}
    measures = ("resistance", "utility", "over_refusal")
    heads = [f"{'Δ ' + MEASURES[name].title} {'↑' if MEASURES[name].higher_is_better else '↓'}" for name in measures]
    rows = []
    for row in records(changed):
        cells = [point_link(row)]
        for name in measures:
            test = known.get((row["setting"], name))
            if test is None:
                cells.append(figure(row[f"{name}_change"], digits=chapter.digits, sign=True))
            else:
                cells.append(figure(test["difference"], test["low"], test["high"], sign=True) + _effect(test))
        rows.append(tuple(cells))
    caption = f"Against {point_link(alone)}, {SIDES[side]}: {figures_sentence(alone, chapter.digits)}."
    if known:
        rates = "Paired bootstrap by topic" if chapter.topics.get("resistance") else "McNemar"
        caption += f" {rates} and Cohen's h for rates, paired bootstrap and d for means, p after Holm within a column."
    return drop_empty(Table(("Run", *heads), tuple(rows), caption=caption))


def _effect(test: Mapping[str, Any]) -> str:
    effect = test["effect"]
    size = "" if pd.isna(effect) else f", {str(test['effect_kind'])[-1]} {effect:+.2f} {magnitude(effect)}"
    return f" (p {p_text(test['p_holm'])}{size})"


def _fronts_of(chapter: Chapter) -> dict[str, list[str]]:
    """method → settings that stand in every test; all of them where there are no answers."""
    groups: dict[str, list[str]] = {}
    planes = [chapter.axes[name] for name in ("resistance", "utility") if name in chapter.axes]
    for row in records(chapter.found.dropna(subset=["resistance", "utility"])):
        if all(row["setting"] in table for table in planes):
            groups.setdefault(str(row["method"]), []).append(str(row["setting"]))
    return groups


def _volumes_of_three(chapter: Chapter, groups: Mapping[str, list[str]]) -> dict[str, fronts.Hypervolume]:
    if not {"resistance", "utility", "over_refusal"} <= set(chapter.axes):
        return {}
    tables = [chapter.axes["resistance"], chapter.axes["utility"], 1.0 - chapter.axes["over_refusal"]]
    drawn = chapter.drawn("resistance", "utility", "over_refusal")
    spaces = [fronts.Axis(table, topics) for table, topics in zip(tables, drawn, strict=True)]
    complete = {method: [run for run in runs if run in tables[2]] for method, runs in groups.items()}
    return {method: fronts.hypervolume_interval(spaces, runs) for method, runs in complete.items() if runs}


def _run_ids(by_setting: pd.DataFrame, settings: Iterable[str]) -> list[str]:
    return [run for setting in settings for run in by_setting.loc[setting, "run_ids"]]
