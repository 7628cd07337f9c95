"""A chapter's sections: each a small function from the chapter to a section, None where it has nothing to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from sstmerge_core import metrics, words
from sstmerge_core.metrics.safety_tax import REASONS
from sstmerge_core.plots import pareto
from sstmerge_core.plots.measures import MEASURES
from sstmerge_core.plots.style import style
from sstmerge_core.report import tables
from sstmerge_core.report.advice import in_short, recommendations
from sstmerge_core.report.basis import basis, seeds, span, unjudged
from sstmerge_core.report.claims import alpha_list
from sstmerge_core.report.comparisons import (
    against_first,
    below_sentence,
    equals_sentence,
    front_comparison,
    over_seeds,
    single_adapters,
    top_ten,
)
from sstmerge_core.report.consistency import consistency
from sstmerge_core.report.document import (
    Bullets,
    Chart,
    Section,
    Table,
    drop_empty,
    figure,
    kept_cell,
    listed,
    measure_cell,
    point_link,
    runs_link,
)
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.matched import LEVELS
from sstmerge_core.report.points import records
from sstmerge_core.words import plain


def chapter_sections(chapter: Chapter) -> Iterator[Section]:
    """Everything about one pair, the conclusion first; each is computed when it is asked for."""
    yield opening(chapter)
    for write in (
        recommendations,
        methods_and_alpha,
        tax_at_matched_resistance,
        series,
        k_and_layerwise,
        k_comparison,
        top_ten,
        single_adapters,
        front_comparison,
        over_seeds,
        consistency,
        two_judges,
    ):
        if (section := write(chapter)) is not None:
            yield section


def opening(chapter: Chapter) -> Section:
    """What was compared, on what, judged by whom, and the picture."""
    found = chapter.found
    if chapter.reported:
        title = f"{plain(chapter.pair)}, reported"
        facts = (
            f"{words.count(len(found), 'setting')} of the 2026-01 report (its main table), "
            f"utility {_suite(chapter)}. Figures by others, without intervals: no number of prompts is given."
        )
    else:
        title = f"{plain(chapter.pair)}, measured here"
        facts = " ".join(_measured_facts(chapter))
    shown = pareto.drawable(_with_references(chapter), "resistance", "utility")
    chart = Chart(pareto.figure(shown), f"Runs of {chapter.pair} between resistance and utility")
    return Section(title, (facts, Bullets(tuple(_in_short(chapter))), chart))


def methods_and_alpha(chapter: Chapter) -> Section:
    """Every setting in the order of the methods and of α."""
    head = ("Run", "Resistance ↑", "Utility ↑", "of U's ↑", "Over-refusal ↓", "Sum ↑", "Safety tax ↓")
    rows = [
        (
            point_link(row),
            *(measure_cell(row, name, chapter.digits) for name in ("resistance", "utility")),
            kept_cell(chapter.kept.get(str(row["setting"]))),
            *(measure_cell(row, name, chapter.digits) for name in ("over_refusal", "total")),
            _tax_cell(row),
        )
        for row in [*chapter.references.values(), *records(chapter.found)]
    ]
    caption = basis(chapter)
    if not chapter.reported:
        caption += " In brackets 95 % intervals: Wilson for rates, bootstrap for means, Fieller's for shares of U's "
        caption += "utility; topics are drawn whole where prompts have any. A tax is told at its own run's resistance: "
        caption += "those of different resistance are not compared."
    return Section("Methods and α", (drop_empty(Table(head, tuple(rows), caption=caption)),), level=3)


def tax_at_matched_resistance(chapter: Chapter) -> Section | None:
    """Each method's Safety Tax where it resists as much as the others, and by how much that is below linear's."""
    found = chapter.matched
    if not found.series or "utility" not in chapter.references:
        return None
    head = ("Method", "α measured", "Resistance", "Tax ↓", "below linear's, % ↑")
    rows = []
    for at, taxes in found.taxes.items():
        for name, (tax, reduction) in sorted(taxes.items(), key=lambda item: float(item[1][0].value or 0.0)):
            own = found.series[name]
            cells = (runs_link(chapter.pair, own.run_ids, plain(name)), alpha_list(own.alphas), f"{at:g}")
            less = "–" if name == found.linear else figure(*reduction, digits=0)
            rows.append((*cells, figure(*tax), less))
    told = (
        "Taxes of merges of different resistance are not comparable. Here every method is read at the same one, "
        "between neighbouring α, from all its α, none chosen: utility lost per resistance gained against the utility "
        "adapter alone."
    )
    if not rows:
        levels = listed(f"{at:g}" for at in LEVELS)
        return Section("Safety Tax at matched resistance", (f"{told} No curve reaches {levels} from below.",), level=3)
    reached = {name for taxes in found.taxes.values() for name in taxes}
    beyond = [plain(name) for name in found.series if name not in reached]
    caption = basis(chapter, ("resistance", "utility"))
    if not chapter.reported:
        caption += " In brackets 95 % intervals: bootstrap over prompts and their topics, every curve fitted anew; "
        caption += "Fieller's for what is below linear's. Open where too many resamples do not reach that resistance."
    if not found.linear:
        caption += " Linear has no curve here, so nothing is told of its tax."
    if beyond:
        caption += f" Reached at none of these by {listed(beyond)}."
    table = drop_empty(Table(head, tuple(rows), texts=2, caption=caption))
    return Section("Safety Tax at matched resistance", (told, table), level=3)


DIFFERENCES = 12
"""Answers on which judges differ that are named at most"""


def two_judges(chapter: Chapter) -> Section | None:
    """How far the chapter's judge agrees with others that judged the same answers, and where they differ."""
    if not chapter.judges:
        return None
    parts: list[Any] = []
    for pair in chapter.judges:
        parts.append(plain(pair.sentence))
        if pair.differing.empty:
            continue
        shown = pair.differing.head(DIFFERENCES)
        rest = len(pair.differing) - len(shown)
        rows = tuple(
            (
                words.run_link(words.shortened(str(row["prompt"]).replace("\n", " "), 60), str(row["run_id"])),
                plain(str(row["suite"])),
                plain(str(row["first"])),
                plain(str(row["second"])),
            )
            for row in records(shown)
        )
        head = ("Answer to", "Prompts", plain(pair.first), plain(pair.second))
        more = f" {words.count(rest, 'more')} on the Run pages." if rest else ""
        caption = (
            f"Of {words.count(pair.answers, 'answer')} that both judged they differ on {len(pair.differing)}.{more}"
        )
        parts.append(Table(head, rows, texts=4, caption=caption))
    return Section("Two judges", tuple(parts), level=3)


def series(chapter: Chapter) -> Section | None:
    """Each method's mean, least and greatest figure over its α, with the grid that this is the mean of."""
    lines = tables.by_series(chapter.found)
    lines = lines[lines["n"] > 1]
    if lines.empty:
        return None
    head = ("Method", "α grid", "Resistance, mean", "least – greatest", "Utility, mean", "least – greatest")
    rows = []
    for line in records(lines):
        cells = [_series_name(line), alpha_list(line["alphas"]) + f" ({len(line['alphas'])})"]
        for measure in ("resistance", "utility"):
            low, high = (figure(line[f"{measure}_{end}"], digits=chapter.digits) for end in ("min", "max"))
            cells += [figure(line[f"{measure}_mean"], digits=chapter.digits), f"{low} – {high}"]
        rows.append(tuple(cells))
    caption = "Means over different α grids must not be compared. " + basis(chapter, ("resistance", "utility"))
    return Section("Means over α", (Table(head, tuple(rows), texts=2, caption=caption),), level=3)


def k_and_layerwise(chapter: Chapter) -> Section | None:
    """The settings of methods that were run with several k, layer-wise and pooled beside each other."""
    rows = tables.k_layerwise(chapter.found)
    if rows.empty:
        return None
    head = ("Run", "α", "k", "Layer-wise", "Resistance ↑", "Utility ↑", "Sum ↑")
    lines = []
    for row in records(rows):
        layerwise = "–" if pd.isna(row["layerwise"]) else "yes" if row["layerwise"] else "no"
        figures = (measure_cell(row, name, chapter.digits) for name in ("resistance", "utility", "total"))
        lines.append((point_link(row), f"{row['alpha']:g}", f"{row['k']:.0f}", layerwise, *figures))
    caption = basis(chapter, ("resistance", "utility"))
    return Section("k × layer-wise", (Table(head, tuple(lines), caption=caption),), level=3)


def k_comparison(chapter: Chapter) -> Section | None:
    """Every two k of a method, over their own grids and over the α that both have."""
    found = tables.k_comparisons(chapter.found)
    if not found:
        return None
    head = (
        "Method",
        "k",
        "α of the lower k",
        "of the higher k",
        "Measure",
        "Means, own α",
        "Δ",
        "Δ, shared α",
        "Shared α",
    )
    rows = []
    for one in found:
        name = plain(style(one.method).title) + (" layer-wise" if one.layerwise else "")
        grids = [alpha_list(alphas) for alphas in one.alphas]
        means = " → ".join(f"{mean:.{chapter.digits}f}" for mean in one.means)
        shared = "–" if one.at_shared is None else f"{one.at_shared:+.{chapter.digits}f}"
        shared = shared if one.at_shared is None else runs_link(chapter.pair, one.run_ids, shared)
        cells = (MEASURES[one.measure].title, means, f"{one.own:+.{chapter.digits}f}", shared)
        rows.append((name, f"{one.low_k} → {one.high_k}", *grids, *cells, alpha_list(one.shared) or "none"))
    apart = {(one.method, one.low_k, one.high_k) for one in found if not one.same_grid}
    note = "Every two k stand on the same α grid."
    if apart:
        pairs = [f"{plain(style(method).title)} k={low} and k={high}" for method, low, high in sorted(apart)]
        note = (
            f"{listed(pairs, most=9)} were run over different α grids: only the difference at shared α compares them."
        )
    note += " By the figures alone, nothing is tested."
    caption = basis(chapter, ("resistance", "utility"))
    return Section("Comparison of k", (note, Table(head, tuple(rows), texts=5, caption=caption)), level=3)


def _measured_facts(chapter: Chapter) -> list[str]:
    found = chapter.found
    counts = {name: found[f"{name}_n"].dropna().unique() for name in ("resistance", "utility", "over_refusal")}
    titles = {"resistance": "harmful", "utility": chapter.suite, "over_refusal": "harmless look-alike"}
    prompts = [f"{span(n)} {plain(titles[name])}" for name, n in counts.items() if len(n)]
    drawn = ", topics drawn whole" if any(chapter.topics.values()) else ""
    facts = [
        f"{words.count(len(chapter.runs), 'run')} in {words.count(len(found), 'setting')} on "
        f"{plain(chapter.base) or 'an unnamed base model'}, test split only, {listed(prompts)} prompts; "
        f"utility {_suite(chapter)}; judge **{plain(chapter.judge) or 'unknown'}**; {seeds(chapter)}; 95 % intervals"
        f"{drawn}."
    ]
    if told := unjudged(chapter):
        facts.append(told)
    if found["asr_status"].eq("judge_cannot_tell").all():
        facts.append("This judge cannot tell harmful from harmless answers, so no attack success rate is given.")
    lacking = [row for row in records(found) if any(row["setting"] not in table for table in chapter.axes.values())]
    if lacking:
        facts.append(f"{words.count(len(lacking), 'setting')} answered other prompts and stand in no test.")
    return facts


def _in_short(chapter: Chapter) -> list[str]:
    """The statements a reader must not miss."""
    told = []
    ranked = tables.top(chapter.found)
    if len(ranked):
        first = ranked.iloc[0].to_dict()
        figure = measure_cell(first, "total", chapter.digits)
        sentence = f"The reports' sum, which refusing more raises, is greatest for {point_link(first)}, {figure}"
        totals = against_first(chapter, ranked)
        told.append(f"{sentence}. {equals_sentence(ranked, totals)}" if totals else f"{sentence}.")
    told += in_short(chapter)
    if "utility" in chapter.references:
        told.append(below_sentence(chapter))
    return told


def _with_references(chapter: Chapter) -> pd.DataFrame:
    rows = [dict(row) for row in chapter.references.values()]
    return pd.concat([chapter.found, pd.DataFrame(rows)], ignore_index=True) if rows else chapter.found


def _tax_cell(row: Mapping[str, Any]) -> str:
    status = row.get("safety_tax_status")
    if pd.notna(row.get("safety_tax")) and status == "ok":
        return measure_cell(row, "safety_tax")
    return REASONS.get(str(status), "–") if isinstance(status, str) and status != "ok" else "–"


def _series_name(line: Mapping[str, Any]) -> str:
    parts = [plain(style(str(line["method"])).title)]
    parts += [f"k={line['k']:.0f}"] if pd.notna(line["k"]) else []
    parts += ["layer-wise"] if line["layerwise"] is True else []
    return " ".join(parts)


def _suite(chapter: Chapter) -> str:
    known = chapter.found["utility_metric"].dropna()
    about = metrics.named().get(known.iloc[0]) if len(known) else None
    return f"{about.words if about else 'utility'} on {plain(chapter.suite)}"
