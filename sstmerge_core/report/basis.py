"""What a chapter's statements rest on, in words: prompts, their number and topics, judge, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sstmerge_core import words
from sstmerge_core.evaluate.judges_measured import unjudged_words
from sstmerge_core.report.document import listed
from sstmerge_core.report.gather import Chapter
from sstmerge_core.words import plain

REPORTED = "Figures by others: how many prompts, which judge and how many seeds is not given."
MEASURES = ("resistance", "utility", "over_refusal")


def basis(chapter: Chapter, measures: Sequence[str] = MEASURES) -> str:
    """``Test prompts, n = 64 harmful (16 topics) and 64 facts; judge refusal_regex_v2; one seed a setting.``"""
    if chapter.reported:
        return REPORTED
    counted = [told for name in measures if (told := _prompts(chapter, name))]
    n = f", n = {listed(counted)}" if counted else ""
    judge = f"; judge {plain(chapter.judge) or 'unknown'}" if {"resistance", "over_refusal"} & set(measures) else ""
    return f"Test prompts{n}{judge}; {seeds(chapter)}."


def unjudged(chapter: Chapter) -> str:
    """How many answers behind the rates are in no language of the judge; empty where none is."""
    return plain(unjudged_words(*chapter.unjudged, chapter.judge))


def _prompts(chapter: Chapter, measure: str) -> str:
    title = {"resistance": "harmful", "utility": plain(chapter.suite), "over_refusal": "harmless look-alike"}[measure]
    topics = chapter.topics.get(measure)
    drawn = f" ({words.count(len(set(topics)), 'topic')})" if topics else ""
    if measure in chapter.axes:
        return f"{len(chapter.axes[measure])} {title}{drawn}"
    counts = chapter.found[f"{measure}_n"].dropna().unique() if f"{measure}_n" in chapter.found else []
    return f"{span(counts)} {title}" if len(counts) else ""


def seeds(chapter: Chapter) -> str:
    """How many seeds stand behind each setting."""
    counts = {len(ids) for ids in chapter.found["run_ids"]}
    if counts <= {1}:
        return "one seed a setting"
    return f"{span(counts)} seeds a setting, averaged"


def span(numbers: Any) -> str:
    """``64``, or ``8 to 64``: from the least of some counts to the greatest."""
    low, high = int(min(numbers)), int(max(numbers))
    return str(low) if low == high else f"{low} to {high}"
