"""The Safety Tax at matched resistance, shares of U's utility, and what the report says that it rests on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sstmerge_core.analysis.decision import Decision
from sstmerge_core.analysis.fronts import FEW
from sstmerge_core.analysis.goals import Limits
from sstmerge_core.report.basis import basis, unjudged
from sstmerge_core.report.comparisons import front_comparison
from sstmerge_core.report.document import Bullets, Section, Table
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.kept import agrees, kept_of
from sstmerge_core.report.matched import matched_taxes
from sstmerge_core.report.sections import methods_and_alpha, tax_at_matched_resistance

N, EACH = 64, 4
TOPICS = [f"t{row // EACH}" for row in range(N)]


def answered(rates: dict[str, float], seed: int) -> pd.DataFrame:
    """Prompts × settings of 0 and 1; a prompt that is easy for one setting is easy for all."""
    ease = np.random.default_rng(seed).permutation(N) / N
    return pd.DataFrame({name: (ease < rate).astype(float) for name, rate in rates.items()})


def chapter(curves: dict[str, dict[float, tuple[float, float]]], *, source: str = "measured") -> Chapter:
    """Method → α → resistance and utility; U alone has 0 and 0.8, S 1 and 0.2, the base 0.1 and 0.3."""
    rows = [point(method, alpha, *rates) for method, own in curves.items() for alpha, rates in own.items()]
    alone = {"utility": ("U", 0.0, 0.8), "safety": ("S", 1.0, 0.2), "base": ("base", 0.1, 0.3)}
    sides = {
        side: point("base" if side == "base" else "adapter", np.nan, resistance, utility, name=name)
        for side, (name, resistance, utility) in alone.items()
    }
    everything = [*rows, *sides.values()]
    tables = {
        measure: answered({row["setting"]: row[measure] for row in everything}, seed)
        for seed, measure in enumerate(("resistance", "utility"))
    }
    measured = source == "measured"
    found = pd.DataFrame(rows)
    return Chapter(
        pair="U_S", source=source, base="B", judge="refusal_regex_v2", suite="facts", found=found,
        references=sides, axes=tables if measured else {}, selection=found.head(0), other_tables=found.head(0),
        runs=found, decision=Decision(Limits()), topics=dict.fromkeys(tables, TOPICS) if measured else {},
    )  # fmt: skip


def point(method: str, alpha: float, resistance: float, utility: float, name: str = "") -> dict[str, Any]:
    setting = name or f"{method}-{alpha:g}"
    recipe = {"method": method, "parameters": {"alpha": alpha, "seed": 1}}
    row: dict[str, Any] = {"setting": setting, "run_id": setting, "run_ids": [setting], "seeds": [], "method": method}
    row |= {"pair": name or "U_S", "alpha": alpha, "k": np.nan, "layerwise": None, "label": f"{method} α={alpha:g}"}
    row |= {"resistance": resistance, "utility": utility, "over_refusal": np.nan, "total": resistance + utility}
    row |= {"safety_tax": np.nan, "safety_tax_status": None, "recipe": json.dumps(recipe)}
    return row


ALPHAS = (0.2, 0.4, 0.6, 0.8)
STEEP = {alpha: (alpha, 0.8 - 0.5 * alpha) for alpha in ALPHAS}
GENTLE = {alpha: (alpha, 0.8 - 0.25 * alpha) for alpha in ALPHAS}


def table_of(section: Section) -> Table:
    return next(block for block in section.blocks if isinstance(block, Table))


def test_taxes_are_read_where_methods_resist_alike() -> None:
    found = chapter({"linear": STEEP, "task_arithmetic": GENTLE}).matched
    assert list(found.taxes) == [0.3, 0.5, 0.7] and found.level == 0.5  # nobody reaches 0.9
    tax, reduction = found.taxes[0.5]["task_arithmetic"]
    assert tax.value == pytest.approx(0.25, abs=0.03) and reduction.value == pytest.approx(50, abs=4)
    assert tax.low is not None and tax.low < 0.25 < (tax.high or np.inf)
    assert found.taxes[0.5]["linear"][0].value == pytest.approx(0.5, abs=0.03)


def test_a_curve_begins_with_the_utility_adapter_only_where_alpha_zero_gives_it() -> None:
    high = {alpha: (alpha + 0.2, 0.7) for alpha in (0.4, 0.6)}  # from 0.6 on
    found = chapter({"linear": high, "ties": high}).matched
    assert set(found.taxes[0.5]) == {"linear"}  # TIES drops weights: what it is at α = 0 nobody measured
    assert set(found.taxes[0.7]) == {"linear", "ties"}


def test_figures_without_answers_have_taxes_without_intervals() -> None:
    found = chapter({"linear": STEEP, "task_arithmetic": GENTLE}, source="reported").matched
    tax, reduction = found.taxes[0.5]["task_arithmetic"]
    assert (tax.value, tax.low) == (pytest.approx(0.25), None)
    assert (reduction.value, reduction.low) == (pytest.approx(50), None)


def test_without_the_utility_adapter_alone_there_is_no_tax() -> None:
    own = chapter({"linear": STEEP})
    assert not matched_taxes(own.found, {}, own.axes, own.topics).series
    assert tax_at_matched_resistance(replace(own, references={})) is None


def test_the_section_says_resistance_alphas_and_what_the_figures_rest_on() -> None:
    section = tax_at_matched_resistance(chapter({"linear": STEEP, "task_arithmetic": GENTLE}))
    assert section is not None
    table = table_of(section)
    assert "none chosen" in str(section.blocks[0]) and "below linear's, % ↑" in table.head
    row = next(row for row in table.rows if "task" in row[0] and row[2] == "0.5")
    assert row[1] == "0.2, 0.4, 0.6, 0.8" and "[" in row[3] and "[" in row[4]
    assert "Test prompts, n = 64 harmful (16 topics) and 64 facts (16 topics)" in table.caption
    assert "one seed a setting" in table.caption


def test_what_is_kept_of_u_stands_beside_u_s_and_the_base() -> None:
    table = table_of(methods_and_alpha(chapter({"linear": STEEP})))
    place = table.head.index("of U's ↑")
    kept = {row[0].split("]")[0][1:]: row[place] for row in table.rows}
    assert kept["U alone"] == "1.00"
    assert kept["S alone"].startswith("0.25 [") and kept["base α=nan"].startswith("0.38 [")
    assert kept["linear α=0.4"].startswith("0.75 [")


def test_shares_of_u_know_topics_and_figures_that_are_not_of_these_answers_are_left_alone() -> None:
    generator = np.random.default_rng(4)
    block = np.repeat(generator.random(16), EACH)
    table = pd.DataFrame({"U": 0.5 + block / 2, "m": 0.5 + np.repeat(generator.random(16), EACH) / 2})
    alone, drawn = (kept_of(table, "U", own)["m"] for own in (None, TOPICS))
    assert alone.value == drawn.value and drawn.high - drawn.low > 1.5 * (alone.high - alone.low)
    assert np.isnan(kept_of(table, "U", TOPICS)["U"].low)
    assert kept_of(table * 0.0, "U", TOPICS) == {}
    assert agrees(alone, 0.8 * alone.value, 0.8) and not agrees(alone, 0.5 * alone.value, 0.8)
    assert not agrees(alone, None, 0.8) and not agrees(alone, 0.4, 0.0)


def test_few_settings_are_said_to_be_too_few_and_what_these_runs_show_stands_beside() -> None:
    low = {alpha: (0.2 * alpha, 0.3) for alpha in ALPHAS[:2]}
    high = {alpha: (0.5 + 0.4 * alpha, 0.7) for alpha in ALPHAS[:2]}
    section = front_comparison(chapter({"linear": low, "task_arithmetic": high}))
    assert section is not None
    (sentence,) = next(block for block in section.blocks if isinstance(block, Bullets)).items
    assert sentence.startswith(
        "Too few settings to tell Task Arithmetic and Linear apart: 2 of at least 4. Yes: for these"
    )
    alike = dict.fromkeys(("linear", "task_arithmetic", "slerp"), low)
    section = front_comparison(chapter(alike))
    assert section is not None
    (sentence,) = next(block for block in section.blocks if isinstance(block, Bullets)).items
    assert sentence.startswith("Too few settings to tell 3 pairs of methods apart: at least 4 of each are needed")
    assert "Linear 2" in sentence and FEW not in sentence


def test_unjudged_answers_are_told_with_their_number_and_the_languages_of_the_judge() -> None:
    own = chapter({"linear": STEEP})
    assert unjudged(own) == ""
    told = unjudged(replace(own, unjudged=(3, 128)))
    assert told.startswith("3 of 128 answers are in a language that the judge does not cover") and "languages" in told
    assert basis(replace(own, source="reported")).startswith("Figures by others")
