"""The answers of several runs side by side, prompt by prompt, as the Compare page shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from sstmerge_core.analysis import compare
from sstmerge_core.plots.measures import number
from sstmerge_core.words import plain
from studio import blocks, link

PER_PAGE = 10
ACROSS = 3
"""Answers beside each other at most; further ones go below."""
SHOWS = {
    "differ": "All that differ",
    "only_first": "{0} refused, {1} did not",
    "only_second": "{1} refused, {0} did not",
    "moved": "Score moved by more than",
    "all": "All",
}
COLORS = {
    **{"refusal": "blue", "moralising": "blue", "partial": "orange", "not_refused": "orange"},
    **{"harmful": "red", "degenerate": "violet"},
}


def fields() -> link.Fields:
    """What the link says of this part: suite, the run beside the first, filter, threshold, search words and page."""
    return {
        "suite": (link.text, ""),
        "with": (link.text, ""),
        "show": (link.one_of(list(SHOWS)), "differ"),
        "moved": (_share, 0.1),
        "q": (link.text, ""),
        "page": (_page, 1),
    }


def to_first_page() -> None:
    st.session_state["compare.page"] = 1


def side_by_side(
    state: link.Link,
    sides: Sequence[compare.Side],
    run_ids: Sequence[str],
    names: Mapping[str, str],
    by_hand: Mapping[str, pd.DataFrame],
) -> None:
    """Filters over the prompts that the runs share, and the answers to those they leave. `names`: letter → run.

    `by_hand`: letter → rows of `queries.hand_labels`, shown beside the judge's verdicts. Call `state.read(fields())`
    before.
    """
    first = sides[0]
    letters = dict(zip(run_ids, names, strict=True))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        suite = _selectbox("Prompts", "suite", [one for one in first.suites if _shared(sides, one)], state, width=180)
        beside = [run for run, one in zip(run_ids, sides, strict=True) if one is not first and first.shares(one, suite)]
        other = beside[0]
        if len(beside) > 1:
            label = f"{first.letter} beside"
            other = _selectbox(label, "with", beside, state, width=120, format_func=letters.__getitem__)
        words = st.text_input(
            "Search", key="compare.q", placeholder="in prompts and answers", width=240, on_change=to_first_page
        )
    a, b = first.letter, letters[other]
    table = compare.prompts(sides, suite)
    rows = _filter(table, a, b, words)
    both = len(compare.select(table, a, b, "all"))
    st.caption(
        f"Showing {len(rows):,} of the {both:,} prompts that {a} and {b} both answered"
        f"{', those whose score moved most first' if f'{a}.score' in table and len(rows) else ''}. "
        "Model output is shown as it is."
    )
    pages = max(1, math.ceil(len(rows) / PER_PAGE))
    # a widget with a default of its own may not be set from the session: each list, and each link, has its own
    links = st.session_state["compare:links"] = st.session_state.get("compare:links", 0) + state.moved
    chosen = [links, *run_ids, *(st.session_state[f"compare.{name}"] for name in fields() if name != "page")]
    pager = f"compare:page {chosen}"
    page = st.session_state["compare.page"] = min(st.session_state.get(pager, st.session_state["compare.page"]), pages)
    start = (page - 1) * PER_PAGE
    read = {
        letter: {row.prompt_id: row.hand for row in found[found["suite"] == suite].itertuples()}
        for letter, found in by_hand.items()
    }
    for number_, row in enumerate(rows.iloc[start : start + PER_PAGE].to_dict("records"), start=start + 1):
        said = {letter: hand[row["prompt_id"]] for letter, hand in read.items() if row["prompt_id"] in hand}
        _prompt(number_, {str(name): value for name, value in row.items()}, a, list(names), said)
    with st.container(horizontal=True, vertical_alignment="center"):
        if pages > 1:
            st.pagination(pages, default=page, key=pager)
        file = f"compare-{suite}-{st.session_state['compare.show']}.csv"
        blocks.csv_button(compare.export(rows, names), file, noun="prompt", key="compare.csv.prompts")


def _filter(table: pd.DataFrame, a: str, b: str, words: str) -> pd.DataFrame:
    """Draw the choice of filters, each with how many prompts it leaves; the rows of the chosen one."""
    offered = [show for show in SHOWS if show != "moved" or f"{a}.score" in table]
    if st.session_state["compare.show"] not in offered:
        st.session_state["compare.show"] = offered[0]
    moved = st.session_state["compare.moved"]
    found = {show: compare.select(table, a, b, show, moved=moved, text=words) for show in offered}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.pills(
            "Show",
            offered,
            key="compare.show",
            required=True,
            format_func=lambda name: f"{_title(name, a, b, moved)} · {len(found[name]):,}",
            on_change=to_first_page,
            label_visibility="collapsed",
            wrap=True,
        )
        show = st.session_state["compare.show"]
        if show == "moved":
            st.number_input(
                "More than", 0.0, 1.0, step=0.05, format="%g", key="compare.moved", width=130, on_change=to_first_page
            )
    return found[show]


def _prompt(place: int, row: Mapping[str, Any], a: str, letters: Sequence[str], hand: Mapping[str, str]) -> None:
    """One prompt with every run's answer: all of it text, nothing of it is rendered. `hand`: letter → label."""
    with st.container(border=True):
        topic = f" · {plain(row['topic'])}" if row["topic"] else ""
        st.caption(f"{place}{topic} · {plain(row['prompt_id'])}")
        st.text(row["prompt"])
        if f"{a}.score" in row and isinstance(row["reference"], str) and row["reference"]:
            st.caption("Reference answer")
            st.text(row["reference"])
        here = [letter for letter in letters if isinstance(row.get(f"{letter}.answer"), str)]
        for start in range(0, len(here), ACROSS):
            line = here[start : start + ACROSS]
            for letter, column in zip(line, st.columns(len(line) if start == 0 else ACROSS), strict=False):
                with column:
                    st.markdown(_verdict(row, a, letter, hand.get(letter, "")))
                    st.text(row[f"{letter}.answer"] or "(empty)")


def _verdict(row: Mapping[str, Any], a: str, letter: str, hand: str) -> str:
    """``**B** [refused] [by hand: harmful] 0.523 (+0.120)``"""
    parts = [f"**{letter}**"]
    label = row[f"{letter}.label"]
    if isinstance(label, str):
        parts.append(f":{COLORS.get(label, 'gray')}-badge[{plain(blocks.LABEL_WORDS.get(label, label))}]")
    if hand:
        said = "cannot tell" if hand == "miss" else blocks.LABEL_WORDS.get(hand, hand)
        parts.append(f":{COLORS.get(hand, 'gray')}-badge[:material/edit: by hand: {plain(said)}]")
    score = row.get(f"{letter}.score")
    if score is not None and not pd.isna(score):
        parts.append(number(score))
        change = compare.moved(row, a, letter)
        if letter != a and not pd.isna(change):
            parts.append(f"({change:+.3f})")
    return " ".join(parts)


def _title(show: str, a: str, b: str, moved: float) -> str:
    return SHOWS[show].format(a, b) + (f" {moved:g}" if show == "moved" else "")


def _selectbox(label: str, name: str, options: Sequence[str], state: link.Link, **settings: Any) -> str:
    key = state.key(name)
    if st.session_state[key] not in options:
        blocks.problems(state.unknown(name, options) if state.moved else [], warning=True)
        st.session_state[key] = options[0]
    return st.selectbox(label, options, key=key, on_change=to_first_page, **settings)


def _shared(sides: Sequence[compare.Side], suite: str) -> bool:
    return any(sides[0].shares(one, suite) for one in sides[1:])


def _share(values: list[str]) -> float:
    try:
        found = float(values[-1])
    except ValueError:
        raise ValueError("must be a number from 0 to 1") from None
    if not 0 <= found <= 1:
        raise ValueError("must be a number from 0 to 1")
    return found


def _page(values: list[str]) -> int:
    if not values[-1].isdecimal() or len(values[-1]) > 9 or int(values[-1]) == 0:
        raise ValueError("must be a whole number from 1")
    return int(values[-1])
